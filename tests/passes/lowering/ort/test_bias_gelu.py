"""lower-bias-gelu."""

from __future__ import annotations

import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.bias_gelu import LowerBiasGelu
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import check, load, ops, random

FEEDS = {"x": random(2, 3, 16)}
WEIGHTS = {"w": random(24, 16, seed=1), "b": random(24, seed=2)}
TEXT = """main (float[n, s, 16] x) => (y) {{
  t = Transpose <perm = [1, 0]> (w)
  m = MatMul (x, t)
  a = Add (m, b)
  y = Gelu <approximate = "{kind}"> (a)
}}"""


@pytest.mark.parametrize(("kind", "kernel"), [("none", "BiasGelu"), ("tanh", "FastGelu")])
def test_one_kernel(kind: str, kernel: str) -> None:
    model = load(TEXT.format(kind=kind), WEIGHTS)
    assert check(LowerBiasGelu(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Transpose", "MatMul", kernel]


def test_leaves_quantized_layers_their_bias() -> None:
    model = load(TEXT.format(kind="none"), WEIGHTS)
    WeightInt8()(model)
    assert check(LowerBiasGelu(), model, FEEDS, CLOSE).fired == 0


@pytest.mark.parametrize(("rows", "bias"), [(24, 1), (1, 24)])
def test_leaves_a_bias_that_is_broadcast(rows: int, bias: int) -> None:
    weights = {"w": random(rows, 16, seed=1), "b": random(bias, seed=2)}
    model = load(TEXT.format(kind="none"), weights)
    assert check(LowerBiasGelu(), model, FEEDS, CLOSE).fired == 0
