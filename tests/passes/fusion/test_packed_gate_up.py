"""packed-gate-up."""

from __future__ import annotations

import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.fusion.packed_gate_up import PackedGateUp
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 16)}
WEIGHTS = {"gate": random(24, 16, seed=1), "up": random(24, 16, seed=2)}
ACTIVATIONS = {
    "gelu": 'a = Gelu <approximate = "tanh"> (g)',
    "silu": "s = Sigmoid (g) a = Mul (g, s)",
    "relu": "a = Relu (g)",
}


def _graph(activation: str, product: str = "Mul (a, u)", up: str = "up") -> str:
    return f"""main (float[b, s, 16] x) => (y) {{
      gt = Transpose <perm = [1, 0]> (gate)
      g = MatMul (x, gt)
      {activation}
      ut = Transpose <perm = [1, 0]> ({up})
      u = MatMul (x, ut)
      y = {product}
    }}"""


@pytest.mark.parametrize("product", ["Mul (a, u)", "Mul (u, a)"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_linear_layer_for_two(name: str, product: str) -> None:
    model = load(_graph(ACTIVATIONS[name], product), WEIGHTS)
    before = [op for op in ops(model) if op not in ("Transpose", "MatMul")]
    assert check(PackedGateUp(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Transpose", "MatMul", "Split", *before]
    assert list(model.graph.initializers) == ["gate.gate_up.weight"]


def test_leaves_a_product_without_activation() -> None:
    model = load(_graph("a = Neg (g)"), WEIGHTS)
    assert check(PackedGateUp(), model, FEEDS, CLOSE).fired == 0


def test_refuses_a_weight_used_twice() -> None:
    model = load(_graph("a = Relu (g)", up="gate"), {"gate": WEIGHTS["gate"]})
    done = check(PackedGateUp(), model, FEEDS, CLOSE)
    assert reasons(done) == ["two projections share a weight"]


def test_leaves_biases_that_are_broadcast() -> None:
    text = _graph("p = Add (g, b) a = Relu (p)", "Mul (a, v)").replace(
        "      y =", "      v = Add (u, c)\n      y ="
    )
    model = load(text, {**WEIGHTS, "b": random(1), "c": random(1, seed=3)})
    assert check(PackedGateUp(), model, FEEDS, CLOSE).fired == 0
