"""lower-trt-cached-attention: each form against the neutral graph, on onnxruntime."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.dtypes import fill_types
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.trt.cached_attention import CACHE_LENGTH, LowerTrtCachedAttention
from lepton_passes.lowering.trt.forms import attention_forms
from lepton_passes.lowering.trt.legal_trt import LegalTrt
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from lepton_passes.match import made_by
from lepton_plugins.attention.nodes import variants_in
from tests.passes.lowering.trt.decoder import (
    CAPACITY,
    DIM,
    HEADS,
    KV,
    Driven,
    Truth,
    follow,
    lowered,
    neutral,
)
from tests.passes.support import ops, reasons

HALF = 5e-3  # what rounding to fp16 costs these graphs, by the range of the logits
RAGGED = ([7, 8, 9, 10, 11], [20, 21, 22])
EVEN = ([7, 8, 9], [20, 21, 22])


@pytest.mark.parametrize(
    ("wanted", "window", "softcap", "form"),
    [
        ("auto", -1, 0.0, "native"),
        ("auto", 3, 0.0, "mask"),
        ("auto", 1, 0.0, "mask"),
        ("auto", CAPACITY, 0.0, "native"),
        ("auto", -1, 2.0, "matmul"),
        ("auto", 3, 2.0, "matmul"),
        ("native", -1, 0.0, "native"),
        ("mask", -1, 0.0, "mask"),
        ("mask", 4, 0.0, "mask"),
        ("slice", -1, 0.0, "slice"),
        ("matmul", -1, 0.0, "matmul"),
        ("matmul", 3, 0.0, "matmul"),
    ],
)
def test_prefill_and_decode_past_the_window(
    wanted: str, window: int, softcap: float, form: str
) -> None:
    model = neutral(window=window, softcap=softcap)
    truth = Truth(model)
    done = lowered(model, wanted)[1]
    assert (done.fired, reasons(done)) == (2, [])
    assert attention_forms(model) == {form: 2}
    prompts = EVEN if form == "slice" else RAGGED
    assert follow(truth, Driven(model, 2), prompts, steps=8) < 1e-5


@pytest.mark.parametrize(
    ("wanted", "window", "softcap"),
    [("auto", -1, 2.0), ("plugin", 3, 0.0), ("plugin", -1, 2.0), ("auto", 3, 2.0)],
)
def test_the_plugin_computes_in_halves(wanted: str, window: int, softcap: float) -> None:
    model = neutral(window=window, softcap=softcap)
    truth = Truth(model)
    done = lowered(model, wanted, half=True)[1]
    assert (done.fired, reasons(done)) == (2, [])
    assert attention_forms(model) == {"plugin": 2}
    assert follow(truth, Driven(model, 2), RAGGED, steps=8) < HALF


@pytest.mark.parametrize("wanted", ["auto", "native", "matmul"])
def test_sinks_are_for_the_plugin_which_takes_them_in_fp32(wanted: str) -> None:
    model = neutral(sinks=True)
    done = lowered(model, wanted, half=True)[1]
    asked = [] if wanted == "auto" else [f"sinks, which {wanted} has not: plugin"]
    assert (done.fired, reasons(done)) == (2, asked)
    fill_types(model)
    (kernels,) = variants_in(model)
    assert (kernels.sinks, kernels.dtype) == (True, "float16")


@pytest.mark.parametrize("wanted", ["auto", "plugin", "matmul"])
def test_sinks_that_the_plugin_has_no_kernel_for_are_never_left_out(wanted: str) -> None:
    """Nothing else has them: legal-trt refuses the model, which is in fp32."""
    model = neutral(sinks=True)
    lowered(model, wanted)
    assert attention_forms(model) == {"plugin": 2}
    legal = LegalTrt()
    legal(model)
    assert reasons(legal) == ["the plugin computes in FLOAT16 and BFLOAT16, not in FLOAT"]


@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (3, 2.0)])
def test_scores_are_in_fp32_where_they_are_written_out(window: int, softcap: float) -> None:
    model = neutral(window=window, softcap=softcap)
    truth = Truth(model)
    lowered(model, "matmul", half=True)
    assert attention_forms(model) == {"matmul": 2}
    block = next(f for f in model.functions.values() if f.name == "block")
    (soft,) = [n for n in block if n.op_type == "Softmax"]
    assert soft.inputs[0] is not None
    assert made_by(soft.inputs[0], "Add") is not None
    fill_types(model)
    assert soft.inputs[0].dtype == ir.DataType.FLOAT
    assert follow(truth, Driven(model, 2), RAGGED, steps=8) < HALF


def test_what_a_layer_becomes() -> None:
    model = neutral()
    lowered(model)
    block = next(f for f in model.functions.values() if f.name == "block")
    kinds = ops(model, "block")
    assert kinds.count("TensorScatter") == 2
    assert kinds.count("RotaryEmbedding") == 2
    assert not {"CachedAttention", "Where"} & set(kinds)
    attention = next(n for n in block if n.op_type == "TRT_Attention")
    assert attention.attributes.get_string("causal_kind") == "lower_right"
    assert [v is not None for v in attention.inputs] == [True, True, True, False, False, True]
    scatters = [n for n in block if n.op_type == "TensorScatter"]
    assert [n.outputs[0].is_graph_output() for n in scatters] == [True, True]


def test_masks_are_made_once_for_all_layers() -> None:
    model = neutral(window=3)
    lowered(model)
    assert [o.name for n in model.graph if n.op_type == "Where" for o in n.outputs] == [
        "cache.mask.3"
    ]
    assert "Where" not in ops(model, "block")


def test_slice_takes_the_length_from_the_host() -> None:
    model = neutral()
    lowered(model, "slice")
    length = next(v for v in model.graph.inputs if v.name == CACHE_LENGTH)
    assert (str(length.type), tuple(length.shape or ())) == ("INT64", (1,))


@pytest.mark.parametrize(
    ("wanted", "options", "reason", "form"),
    [
        ("native", {"window": 3}, "a window, which native has not: mask", "mask"),
        ("slice", {"window": 3}, "a window, which slice has not: mask", "mask"),
        ("native", {"softcap": 2.0}, "a softcap, which native has not: plugin", "plugin"),
        ("mask", {"softcap": 2.0}, "a softcap, which mask has not: plugin", "plugin"),
    ],
)
def test_a_layer_that_the_form_cannot_say_gets_another(
    wanted: str, options: dict[str, float], reason: str, form: str
) -> None:
    model = neutral(**options)  # type: ignore[arg-type]
    truth = Truth(model)
    done = lowered(model, wanted, half=True)[1]
    assert (reasons(done), done.fired) == ([reason], 2)
    assert attention_forms(model) == {form: 2}
    assert follow(truth, Driven(model, 2), RAGGED, steps=4) < HALF


@pytest.mark.parametrize(
    ("wanted", "softcap", "lacks", "form"),
    [
        ("plugin", 0.0, True, "native"),
        ("plugin", 2.0, True, "matmul"),
        ("auto", 2.0, False, "matmul"),
    ],
)
def test_what_the_plugin_has_no_kernels_for_is_written_out(
    wanted: str, softcap: float, lacks: bool, form: str
) -> None:
    model = neutral(softcap=softcap)
    truth = Truth(model)
    done = lowered(model, wanted)[1]
    words = [f"the plugin computes in FLOAT16 and BFLOAT16, not in FLOAT: {form}"]
    assert (reasons(done), done.fired) == (words * lacks, 2)
    assert attention_forms(model) == {form: 2}
    assert follow(truth, Driven(model, 2), RAGGED, steps=4) < 1e-5


def test_wide_heads_are_for_the_plugin() -> None:
    model = neutral()
    LowerHalfPrecision(ir.DataType.FLOAT16)(model)
    LowerTrtStaticCache(CAPACITY)(model)
    block = next(f for f in model.functions.values() if f.name == "block")
    attention = next(n for n in block if n.op_type == "CachedAttention")
    attention.attributes.add(ir.AttrInt64("head_dim", 512))
    done = LowerTrtCachedAttention("mask")
    done(model)
    assert reasons(done) == ["heads of 512, which mask has not: plugin"]


@pytest.mark.parametrize(
    "turn",
    [
        "",
        f"q1 = RotaryEmbedding <num_heads = {HEADS}> (q, cos, sin) k1 = Relu (k)",
        f"""four = Constant <value_ints = [0, 0, {HEADS}, -1]> ()
        q4 = Reshape (q, four)
        three = Constant <value_ints = [0, 0, {HEADS * DIM}]> ()
        q3 = Reshape (q4, three)
        q1 = RotaryEmbedding <num_heads = {HEADS}> (q3, cos, sin)
        k1 = RotaryEmbedding <num_heads = {KV}, interleaved = 1> (k, cos, sin)""",
    ],
    ids=["no rotary embedding", "queries only", "interleaved keys"],
)
def test_rotary_embeddings(turn: str) -> None:
    model = neutral(turn=turn)
    truth = Truth(model)
    assert lowered(model)[1].fired == 2
    assert follow(truth, Driven(model, 2), RAGGED, steps=4) < 1e-5


def test_a_form_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'flash' is no form of attention"):
        LowerTrtCachedAttention("flash")
