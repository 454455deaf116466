"""lower-native-causal-conv."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_causal_conv import LowerNativeCausalConv
from lepton_plugins.convolution.spec import MOST_TAPS
from lepton_plugins.spec import CPU_DOMAIN
from tests.passes.support import LAYER, Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

WEIGHTS = {"w": random(6, 1, 4, seed=1), "c": random(6, seed=2)}
CONV = "y, present = ai.lepton.CausalConvWithState <channels = 6>"
TURN = "Transpose <perm = [0, 2, 1]>"
BIAS = "axis = Constant <value_ints = [1]> () column = Unsqueeze (c, axis)"
SILU = "s = Sigmoid (z) a = Mul (z, s)"


def _feeds(tokens: int, width: int = 6) -> dict[str, np.ndarray]:
    return {"x": random(2, tokens, width), "past": random(2, 6, 3, seed=3)}


def _model(
    body: str, width: int = 6, outputs: str = "out, present", weights: Arrays = WEIGHTS
) -> ir.Model:
    text = f"main (float[b, s, {width}] x, float[b, 6, 3] past) => ({outputs}) {{ {body} }}"
    used = {name: array for name, array in weights.items() if f"{name}," in body + ","}
    return load(text, used)


def _conv(model: ir.Model) -> ir.Node:
    (node,) = [node for node in model.graph if node.op_type == "CausalConv"]
    assert node.domain == CPU_DOMAIN
    return node


@pytest.mark.parametrize("tokens", [1, 2, 9])
@pytest.mark.parametrize(
    ("between", "last", "inputs", "activation"),
    [
        ("", "y", 3, 0),
        (f"{BIAS} z = Add (y, column)", "z", 4, 0),
        (f"{BIAS} z = Add (column, y)", "z", 4, 0),
        ("s = Sigmoid (y) a = Mul (y, s)", "a", 3, 1),
        (f"{BIAS} z = Add (y, column) s = Sigmoid (z) a = Mul (s, z)", "a", 4, 1),
    ],
    ids=["alone", "bias", "bias first", "silu", "bias and silu"],
)
def test_one_kernel(tokens: int, between: str, last: str, inputs: int, activation: int) -> None:
    model = _model(f"t = {TURN} (x) {CONV} (t, w, past) {between} out = {TURN} ({last})")
    assert check(LowerNativeCausalConv(), model, _feeds(tokens), CLOSE).fired == 1
    assert ops(model) == ["CausalConv"]
    node = _conv(model)
    assert len(node.inputs) == inputs
    assert node.attributes.get_int("activation") == activation
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    assert list(node.inputs[1].const_value.shape) == [4, 6]


@pytest.mark.parametrize("axis", [1, -2])
def test_gates_on_both_sides(axis: int) -> None:
    """LFM2: what goes in and what comes out is multiplied with pieces of the same projection."""
    body = f"""n = Constant <value_ints = [6, 6, 6]> ()
        t = {TURN} (x) b, c1, h = Split <axis = {axis}> (t, n) g = Mul (b, h)
        {CONV} (g, w, past) o = Mul (c1, y) out = {TURN} (o)"""
    model = _model(body, width=18)
    assert check(LowerNativeCausalConv(), model, _feeds(5, 18), CLOSE).fired == 1
    assert ops(model) == ["Split", "Mul", "CausalConv", "Mul"]
    assert model.graph[1].attributes["axis"].as_int() == -1


def test_a_gate_of_its_own() -> None:
    """Mamba: one piece goes through the convolution, the other one opens what comes of it."""
    body = f"""n = Constant <value_ints = [6, 6]> () t = {TURN} (x) h, g = Split <axis = 1> (t, n)
        {CONV} (h, w, past) s = Sigmoid (y) a = Mul (y, s)
        e = Sigmoid (g) f = Mul (g, e) o = Mul (a, f) out = {TURN} (o)"""
    model = _model(body, width=12)
    assert check(LowerNativeCausalConv(), model, _feeds(5, 12), CLOSE).fired == 1
    assert sorted(ops(model)) == ["CausalConv", "Mul", "Mul", "Sigmoid", "Split"]


def test_what_reads_the_channels_first_gets_them_so() -> None:
    body = f"t = {TURN} (x) {CONV} (t, w, past) other = Relu (y) out = {TURN} (y) third = Neg (t)"
    model = _model(body, outputs="out, present, other, third")
    assert check(LowerNativeCausalConv(), model, _feeds(5), CLOSE).fired == 1
    assert sorted(ops(model)) == ["CausalConv", "Neg", "Relu", "Transpose", "Transpose"]


@pytest.mark.parametrize(
    "between",
    [
        "s = Sigmoid (y) m = Mul (y, s) u = Relu (y) a = Add (m, u)",
        "s = Sigmoid (y) u = Neg (s) m = Mul (y, s) a = Add (m, u)",
        "s = Sigmoid (y) u = Relu (y) a = Mul (u, s)",
        "axis = Constant <value_ints = [0]> () row = Unsqueeze (v, axis) a = Add (y, row)",
        "axis = Constant <value_ints = [1]> () one = Unsqueeze (e, axis) a = Add (y, one)",
        "a = Add (y, y)",
    ],
)
def test_takes_in_no_more_than_it_can_do(between: str) -> None:
    weights = WEIGHTS | {"v": random(5, seed=4), "e": random(1, seed=5)}
    used = {name: a for name, a in weights.items() if f"({name}," in between or name == "w"}
    body = f"t = {TURN} (x) {CONV} (t, w, past) {between} out = {TURN} (a)"
    model = load(
        f"main (float[b, s, 6] x, float[b, 6, 3] past) => (out, present) {{ {body} }}", used
    )
    assert check(LowerNativeCausalConv(), model, _feeds(5), CLOSE).fired == 1
    node = _conv(model)
    assert len(node.inputs) == 3
    assert node.attributes.get_int("activation") == 0


def test_each_layer_has_its_taps() -> None:
    text = f"""
main (float[b, s, 6] x, float[b, 6, 3] past, float[b, 6, 3] past1)
  => (float[b, s, 6] y, float[b, 6, 3] present, float[b, 6, 3] present1)
<float[b, s, 6] h> {{
  [l0] h, present = ai.lepton.layer.block (x, l0_w, l0_c, past)
  [l1] y, present1 = ai.lepton.layer.block (h, l1_w, l1_c, past1)
}}
{LAYER}
block (x, w, c, past) => (out, present) {{
  t = {TURN} (x) {CONV} (t, w, past) {BIAS} z = Add (y, column) {SILU} out = {TURN} (a)
}}"""
    arrays = {f"l{i}_w": random(6, 1, 4, seed=i) for i in range(2)}
    arrays |= {f"l{i}_c": random(6, seed=i + 2) for i in range(2)}
    model = load(text, arrays)
    feeds = _feeds(5) | {"past1": random(2, 6, 3, seed=8)}
    assert check(LowerNativeCausalConv(), model, feeds, CLOSE).fired == 2
    assert ops(model, "block") == ["CausalConv"]
    assert {"l0_w_taps", "l1_w_taps"} <= set(model.graph.initializers)


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (
            "float[6, 1, 4] w",
            {},
            "the weight of the convolution is not constant",
        ),
        (
            "",
            {"w": np.zeros((6, 1, 4), np.float16)},
            "the weight of the convolution is not in fp32",
        ),
        (
            "",
            {"w": random(6, 1, MOST_TAPS + 1)},
            f"the window of the convolution is longer than {MOST_TAPS}",
        ),
    ],
    ids=["no constant", "half", "long"],
)
def test_refuses(text: str, weights: Arrays, reason: str) -> None:
    given = f"float[b, 6, s] x, float[b, 6, k] past{f', {text}' if text else ''}"
    model = load(f"main ({given}) => (y, present) {{ {CONV} (x, w, past) }}", weights)
    lowering = LowerNativeCausalConv()
    lowering(model)
    assert lowering.fired == 0
    assert reasons(lowering) == [reason]
    assert ops(model) == ["CausalConvWithState"]
