"""lower-native-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_attention import LowerNativeAttention
from lepton_passes.origin import mark_file
from tests.passes.support import Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library


def _cached(
    more: str = "", width: int = 16, extra: str = "", more_inputs: str = ""
) -> tuple[ir.Model, Arrays]:
    text = f"""main (float[b, s, {4 * width}] q, float[b, s, {2 * width}] k,
          float[b, s, {2 * width}] v, float[b, 2, p, {width}] pk, float[b, 2, p, {width}] pv,
          int32[b] lengths, int32 total{more_inputs}) => (y, present_k, present_v) {{
      y, present_k, present_v = com.microsoft.GroupQueryAttention <num_heads = 4,
        kv_num_heads = 2, scale = 0.3 {more}> (q, k, v, pk, pv, lengths, total {extra})
    }}"""
    feeds = {
        "q": random(1, 3, 4 * width),
        "k": random(1, 3, 2 * width, seed=1),
        "v": random(1, 3, 2 * width, seed=2),
        "pk": random(1, 2, 5, width, seed=3),
        "pv": random(1, 2, 5, width, seed=4),
        "lengths": np.full(1, 7, np.int32),
        "total": np.array(8, np.int32),
    }
    return load(text), feeds


@pytest.mark.parametrize("more", ["", ", local_window_size = 3", ", softcap = 4.0"])
def test_cached_attention_keeps_its_meaning(more: str) -> None:
    model, feeds = _cached(more)
    assert check(LowerNativeAttention(), model, feeds, CLOSE).fired == 1
    assert [(n.domain, n.op_type) for n in model.graph] == [
        ("ai.lepton.cpu", "GroupQueryAttention")
    ]


def test_refuses_heads_that_do_not_fill_a_register() -> None:
    model, _ = _cached(width=12)
    native = LowerNativeAttention()
    native(model)
    assert reasons(native) == ["heads of 12 are no multiple of 8"]
    assert ops(model) == ["GroupQueryAttention"]


def test_sinks_keep_their_meaning() -> None:
    model, feeds = _cached(extra=", , , , , sinks", more_inputs=", float[4] sinks")
    feeds["sinks"] = random(4, seed=5)
    assert check(LowerNativeAttention(), model, feeds, CLOSE).fired == 1
    (node,) = model.graph
    assert (node.domain, node.op_type) == ("ai.lepton.cpu", "GroupQueryAttention")
    assert [n for n, value in enumerate(node.inputs) if value is not None] == [*range(7), 14]


def test_refuses_positions() -> None:
    model, _ = _cached(extra=", , , places", more_inputs=", int64[b, s] places")
    native = LowerNativeAttention()
    native(model)
    assert reasons(native) == [
        "positions, a bias or norms of heads are left to the kernel of onnxruntime"
    ]


SPLIT = """sizes = Constant <value_ints = [32, 32, 32]> ()
      q, k, v = Split <axis = -1> (x, sizes)"""
THREE = "q = Relu (x0) k = Neg (x0) v = Identity (x0)"


def _plain(made: str, inputs: str = "q, k, v, , mask", more: str = "scale = 0.4,") -> ir.Model:
    return load(
        f"""main (float[b, s, 96] x, float[b, s, 32] x0, int32[b, s] mask) => (y) {{
      {made}
      z = Relu (x0)
      y = com.microsoft.MultiHeadAttention <{more} num_heads = 4> ({inputs})
    }}"""
    )


FEEDS = {
    "x": random(2, 5, 96),
    "x0": random(2, 5, 32, seed=1),
    "mask": np.array([[1] * 5, [1, 1, 1, 0, 0]], np.int32),
}


def test_the_three_pieces_of_a_split_go_in_as_one() -> None:
    model = _plain(SPLIT)
    assert check(LowerNativeAttention(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["MultiHeadAttention"]
    node = next(n for n in model.graph if n.op_type == "MultiHeadAttention")
    assert [v.name if v is not None else None for v in node.inputs] == ["x", None, None, "mask"]


@pytest.mark.parametrize("inputs", ["q, k, v, , mask", "q, k, v"])
def test_three_inputs_stay_three(inputs: str) -> None:
    model = _plain(THREE, inputs)
    for node in model.graph:  # as a graph that was inferred
        for value in node.outputs:
            value.shape = ir.Shape(("b", "s", 32))
            value.type = ir.TensorType(ir.DataType.FLOAT)
    assert check(LowerNativeAttention(), model, FEEDS, CLOSE).fired == 1
    assert ops(model).count("MultiHeadAttention") == 1


def test_keys_of_another_text_are_laid_out_in_heads() -> None:
    model = load(
        """main (float[b, s, 32] q0, float[b, t, 32] k0, int32[b, t] mask) => (y) {
      q = Relu (q0) k = Neg (k0) v = Identity (k0)
      y = com.microsoft.MultiHeadAttention <num_heads = 4, scale = 0.4> (q, k, v, , mask)
    }"""
    )
    for node in model.graph:
        length = "s" if node.outputs[0].name in ("q", "y") else "t"
        node.outputs[0].shape = ir.Shape(("b", length, 32))
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    feeds = {"q0": random(2, 3, 32), "k0": random(2, 9, 32, seed=1)}
    feeds["mask"] = np.array([[1] * 9, [1] * 4 + [0] * 5], np.int32)
    assert check(LowerNativeAttention(), model, feeds, CLOSE).fired == 1
    made = [*["Reshape", "Transpose"] * 2, "MultiHeadAttention"]
    assert ops(model) == ["Relu", "Neg", "Identity", *made]
    (node,) = (n for n in model.graph if n.op_type == "MultiHeadAttention")
    assert [v.dtype for v in node.inputs[1:3] if v is not None] == [ir.DataType.FLOAT] * 2


@pytest.mark.parametrize(
    ("inputs", "more", "reason"),
    [
        (
            "q, k, v, , mask, bias",
            "scale = 0.4,",
            "a bias or a cache is left to the kernel of onnxruntime",
        ),
        ("q, k, v, , mask", "", "the scale is not given"),
    ],
)
def test_refuses(inputs: str, more: str, reason: str) -> None:
    model = _plain(SPLIT, inputs, more)
    for node in model.graph:
        for value in node.outputs:
            value.shape = ir.Shape(("b", "s", 32))
    native = LowerNativeAttention()
    native(model)
    assert reasons(native) == [reason]


def test_refuses_heads_of_a_text_that_do_not_fill_a_register() -> None:
    model = _plain("q = Relu (x) k = Relu (x) v = Relu (x)")
    for node in model.graph:
        for value in node.outputs:
            value.shape = ir.Shape(("b", "s", 24))
    native = LowerNativeAttention()
    native(model)
    assert reasons(native) == ["heads of keys and values differ, or are no multiple of 8"]


def test_refuses_widths_it_does_not_know() -> None:
    native = LowerNativeAttention()
    native(_plain("q = Relu (x) k = Relu (x) v = Relu (x)"))
    assert reasons(native) == ["how wide queries, keys and values are is not known"]


@pytest.mark.parametrize("name", ["float16", "double"])
def test_refuses_other_types_than_fp32(name: str) -> None:
    model = load(
        f"""main ({name}[b, s, 32] q) => (y) {{
      y = com.microsoft.MultiHeadAttention <scale = 0.4, num_heads = 4> (q, q, q)
    }}"""
    )
    native = LowerNativeAttention()
    native(model)
    assert (native.fired, reasons(native)) == (0, ["the kernel reads fp32 alone"])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (", smooth_softmax = 1", "our kernel has no smooth_softmax"),
        (", qk_output = 1", "our kernel has no qk_output"),
        (", of_tomorrow = 0", "our kernel has no of_tomorrow"),
    ],
)
def test_refuses_attributes_it_does_not_have(more: str, reason: str) -> None:
    native = LowerNativeAttention()
    native(_cached(more)[0])
    assert (native.fired, reasons(native)) == (0, [reason])


def test_attributes_that_say_what_is_so_anyway() -> None:
    model, feeds = _cached(", smooth_softmax = 0, qk_output = 0")
    assert check(LowerNativeAttention(), model, feeds, CLOSE).fired == 1


@pytest.mark.parametrize("given", ["y", "y, present_k", "y, present_k, present_v, scores"])
def test_refuses_other_outputs_of_a_file(given: str) -> None:
    """With one, keys are new all the same: that there are none is what our own passes say so."""
    model = load(
        f"""main (float[b, s, 64] q, float[b, s, 32] k, float[b, 2, p, 16] pk, int32[b] lengths,
          int32 total) => (y) {{
      {given} = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
        (q, k, k, pk, pk, lengths, total)
    }}"""
    )
    mark_file(model)
    native = LowerNativeAttention()
    native(model)
    assert (native.fired, reasons(native)) == (
        0,
        ["our kernel gives a present of keys and one of values, and no more"],
    )


HEADS = "scale = 0.4, num_heads = 4"


def _of_file(mask: str, how: str = HEADS, outputs: str = "y") -> ir.Model:
    inputs = ", ".join(f"float[b, s, 32] {name}" for name in ("q", "k", "v"))
    model = load(
        f"""main ({inputs}, int32[{mask}] mask) => ({outputs}) {{
      {outputs} = com.microsoft.MultiHeadAttention <{how}> (q, k, v, , mask)
    }}"""
    )
    mark_file(model)
    return model


@pytest.mark.parametrize("more", ["", ", mask_filter_value = -50000.0"])
def test_padding_of_a_file_is_out_of_sight(more: str) -> None:
    feeds = {name: random(2, 5, 32, seed=seed) for seed, name in enumerate("qkv")}
    feeds["mask"] = FEEDS["mask"]
    model = _of_file("b, s", HEADS + more)
    assert check(LowerNativeAttention(), model, feeds, CLOSE).fired == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (("b",), "the mask is not one of (batch, keys)"),
        (("b, s, s",), "the mask is not one of (batch, keys)"),
        (("b, s", f"{HEADS}, mask_filter_value = -1.0"), "what the mask hides has some weight"),
        (("b, s", f"{HEADS}, of_tomorrow = 0"), "our kernel has no of_tomorrow"),
        (("b, s", "scale = 0.0, num_heads = 4"), "the scale is not given"),
        (
            ("b, s", HEADS, "y, keys, values"),
            "it gives a cache, which is left to the kernel of onnxruntime",
        ),
    ],
)
def test_refuses_plain_attention_of_a_file(how: tuple[str, ...], reason: str) -> None:
    native = LowerNativeAttention()
    native(_of_file(*how))
    assert (native.fired, reasons(native)) == (0, [reason])


def test_refuses_a_mask_of_a_file_that_is_of_no_known_form() -> None:
    model = _of_file("b, s")
    model.graph.inputs[3].shape = None
    native = LowerNativeAttention()
    native(model)
    assert reasons(native) == ["the mask is not one of (batch, keys)"]
