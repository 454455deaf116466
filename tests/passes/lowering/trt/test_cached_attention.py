"""lower-trt-cached-attention: each form against the neutral graph, on onnxruntime."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.lowering.trt.cached_attention import CACHE_LENGTH, LowerTrtCachedAttention
from lepton_passes.lowering.trt.forms import attention_forms
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from tests.passes.lowering.trt.decoder import (
    CAPACITY,
    HEADS,
    KV,
    Driven,
    Truth,
    follow,
    lowered,
    neutral,
)
from tests.passes.support import ops, reasons

RAGGED = ([7, 8, 9, 10, 11], [20, 21, 22])
EVEN = ([7, 8, 9], [20, 21, 22])


@pytest.mark.parametrize(
    ("wanted", "window", "softcap", "form"),
    [
        ("auto", -1, 0.0, "native"),
        ("auto", 3, 0.0, "mask"),
        ("auto", 1, 0.0, "mask"),
        ("auto", CAPACITY, 0.0, "native"),
        ("auto", -1, 2.0, "plugin"),
        ("native", -1, 0.0, "native"),
        ("mask", -1, 0.0, "mask"),
        ("mask", 4, 0.0, "mask"),
        ("slice", -1, 0.0, "slice"),
        ("plugin", 3, 0.0, "plugin"),
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
    done = lowered(model, wanted)[1]
    assert (reasons(done), done.fired) == ([reason], 2)
    assert attention_forms(model) == {form: 2}
    assert follow(truth, Driven(model, 2), RAGGED, steps=4) < 1e-5


def test_wide_heads_are_for_the_plugin() -> None:
    model = neutral()
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
        three = Constant <value_ints = [0, 0, {HEADS * 16}]> ()
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
