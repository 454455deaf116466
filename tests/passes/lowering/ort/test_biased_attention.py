"""lower-biased-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.biased_attention import LowerBiasedAttention
from tests.passes.support import check, ops, random, reasons, run
from tests.plugins.cpu_library import needs_library

from .biased import CUT, attention, inferred, mask_of, turned

pytestmark = needs_library

THREE = "q0 = Relu (x) k0 = Neg (x) v0 = Identity (x)"
SPLIT = """sizes = Constant <value_ints = [64, 64, 64]> ()
      q0, k0, v0 = Split <axis = -1> (wide, sizes)"""
TURNED = "\n".join(turned(name, f"{name}0") for name in "qkv")
FEEDS = {
    "x": random(2, 7, 64),
    "wide": random(2, 7, 192, seed=1),
    "bias": random(2, 4, 7, 7, seed=2) + mask_of([7, 4], 7),
}


def _model(
    made: str = THREE,
    bias: str = "float[b, 4, s, s]",
    more: str = "scale = 0.3",
    heads: str = CUT,
    after: str = "",
    cut: str = TURNED,
) -> ir.Model:
    text = attention("q", "k", "v", more)
    return inferred(
        f"""main (float[b, s, 64] x, float[b, s, 192] wide, {bias} bias) => (float[b, s, 64] y) {{
      {made}
      {heads}
      {cut}
      {text.replace("y = Reshape (back, side)", after) if after else text}
    }}"""
    )


def _node(model: ir.Model) -> ir.Node:
    (node,) = (n for n in model.graph if n.op_type == "MultiHeadAttention")
    return node


def _names(node: ir.Node) -> list[str | None]:
    return [value.name if value is not None else None for value in node.inputs]


def test_rows_of_heads_go_in_as_they_are() -> None:
    model = _model()
    assert check(LowerBiasedAttention(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Relu", "Neg", "Identity", "MultiHeadAttention"]
    assert _names(_node(model)) == ["q0", "k0", "v0", None, "bias"]


def test_three_pieces_go_in_as_one() -> None:
    model = _model(SPLIT)
    assert check(LowerBiasedAttention(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["MultiHeadAttention"]
    assert _names(_node(model)) == ["wide", None, None, None, "bias"]


@pytest.mark.parametrize(
    ("bias", "shape"),
    [("float[1, 4, s, s]", (1, 4, 7, 7)), ("float[b, 1, s, s]", (2, 1, 7, 7))],
)
def test_one_bias_for_several(bias: str, shape: tuple[int, ...]) -> None:
    feeds = {**FEEDS, "bias": random(*shape, seed=3)}
    assert check(LowerBiasedAttention(), _model(bias=bias), feeds, CLOSE).fired == 1


def test_keys_of_another_text_stay_in_heads() -> None:
    model = inferred(
        f"""main (float[b, s, 64] x, float[b, t, 64] other, float[b, 4, s, t] bias)
          => (float[b, s, 64] y) {{
      {CUT}
      {turned("q", "x")}
      {turned("k", "other")}
      {attention("q", "k", "k")}
    }}"""
    )
    feeds = {"x": random(2, 3, 64), "other": random(2, 9, 64), "bias": random(2, 4, 3, 9)}
    assert check(LowerBiasedAttention(), model, feeds, CLOSE).fired == 1
    assert ops(model) == ["Reshape", "Transpose", "MultiHeadAttention"]
    assert _names(_node(model)) == ["x", "k", "k", None, "bias"]


def test_keys_that_come_in_heads_stay_so() -> None:
    model = inferred(
        f"""main (float[b, s, 64] x, float[b, 4, s, 16] k, float[b, 4, s, 16] v,
          float[b, 4, s, s] bias) => (float[b, s, 64] y) {{
      {CUT}
      {turned("q", "x")}
      {attention("q", "k", "v")}
    }}"""
    )
    keys = {name: random(2, 4, 7, 16, seed=4) for name in "kv"}
    feeds = {"x": FEEDS["x"], **keys, "bias": FEEDS["bias"]}
    assert check(LowerBiasedAttention(), model, feeds, CLOSE).fired == 1
    assert ops(model) == ["MultiHeadAttention"]


def test_leaves_attention_without_a_bias_to_others() -> None:
    model = _model()
    for node in model.graph:
        if node.op_type == "Attention":
            node.resize_inputs(3)
    lowering = LowerBiasedAttention()
    lowering(model)
    assert (lowering.fired, reasons(lowering)) == (0, [])


COLD = "q_warm = Transpose <perm = [0, 2, 1, 3]> (q_cut) q = Neg (q_warm)"
NUMBERS = "what goes in beside query, key and value is no bias in fp32"
AXES = "heads are no axis of their own, or the bias has other than four"
SIZES = "the bias is not (batch, heads, queries, keys), or 1 of them"
MORE = "it has a cache, scores that are read, or an order beside the bias"
ROWS = "its heads do not come from one row, or do not go to one"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (
            {"bias": "bool[b, 4, s, s]"},
            "what goes in beside query, key and value is no bias in fp32",
        ),
        ({"bias": "float[b, 2, s, s]"}, SIZES),
        ({"bias": "float[b, 4, s, t]"}, SIZES),
        ({"bias": "float[b, 4, t, s]"}, SIZES),
        (
            {"bias": "float[s, s]"},
            "heads are no axis of their own, or the bias has other than four",
        ),
        ({"more": "scale = 0.3, is_causal = 1"}, MORE),
        ({"more": "scale = 0.3, softcap = 2.0"}, "it has a softcap, or no scale"),
        ({"more": "is_causal = 0"}, "it has a softcap, or no scale"),
        ({"after": "y = Relu (back)"}, ROWS),
        ({"after": "y = Reshape (back, side) w = Neg (made)"}, ROWS),
        ({"cut": TURNED.replace("q = Transpose <perm = [0, 2, 1, 3]> (q_cut)", COLD)}, ROWS),
    ],
)
def test_refuses(how: dict[str, str], reason: str) -> None:
    lowering = LowerBiasedAttention()
    lowering(_model(**how))
    assert (lowering.fired, reasons(lowering)) == (0, [reason])


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        ("[0, 0, 16, 4]", "heads of keys and values differ, or are no multiple of 8"),
        ("[0, 0, 2, 32]", SIZES),
    ],
)
def test_refuses_heads(heads: str, reason: str) -> None:
    lowering = LowerBiasedAttention()
    bias = "float[b, 16, s, s]" if "16" in heads else "float[b, 4, s, s]"
    lowering(_model(heads=f"heads = Constant <value_ints = {heads}> ()", bias=bias))
    assert (lowering.fired, reasons(lowering)) == (0, [reason])


def test_refuses_other_types_than_fp32() -> None:
    model = _model()
    for value in model.graph.inputs[:2]:
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    for node in model.graph:
        node.outputs[0].type = None
    lowering = LowerBiasedAttention()
    lowering(model)
    assert (lowering.fired, reasons(lowering)) == (0, ["the kernel reads fp32 alone"])


def test_refuses_grouped_heads() -> None:
    model = inferred(
        f"""main (float[b, s, 64] x, float[b, 2, s, 16] k, float[b, 4, s, s] bias)
          => (float[b, s, 64] y) {{
      {CUT}
      {turned("q", "x")}
      {attention("q", "k", "k")}
    }}"""
    )
    lowering = LowerBiasedAttention()
    lowering(model)
    assert reasons(lowering) == ["heads of keys and values are not those of queries"]


def test_refuses_sizes_that_are_not_known() -> None:
    model = _model()
    for node in model.graph:
        if node.op_type == "Transpose":
            node.outputs[0].shape = None
    lowering = LowerBiasedAttention()
    lowering(model)
    assert reasons(lowering) == ["its sizes are not known"]


def test_what_no_key_is_seen_by_gets_zeros() -> None:
    model = _model()
    LowerBiasedAttention()(model)
    (y,) = run(model, {**FEEDS, "bias": np.full((2, 4, 7, 7), -np.inf, np.float32)})
    assert not y.any()
