"""lower-silu."""

from __future__ import annotations

import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.silu import LowerSilu
from tests.passes.support import check, load, ops, random

FEEDS = {"x": random(2, 3, 8)}


@pytest.mark.parametrize("product", ["Mul (x, s)", "Mul (s, x)"])
def test_one_kernel(product: str) -> None:
    model = load(f"main (float[b, s, 8] x) => (y) {{ s = Sigmoid (x) y = {product} }}")
    assert check(LowerSilu(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["QuickGelu"]


def test_leaves_a_gate_of_something_else() -> None:
    model = load("main (float[b, s, 8] x) => (y) { n = Neg (x) s = Sigmoid (n) y = Mul (x, s) }")
    assert check(LowerSilu(), model, FEEDS, CLOSE).fired == 0
