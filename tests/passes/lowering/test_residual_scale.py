"""lower-residual-scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import ROUNDING, SAME
from lepton_passes.emulation import Emulation
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.residual_scale import LowerResidualScale
from tests.passes.support import LAYER, Arrays, assert_close, check, load, ops, random, reasons, run

WIDTH = 16
FEEDS: Arrays = {"ids": np.array([[3, 1, 4, 1, 5]])}
BLOCK = """s = {add} (h, {added})
  y = RMSNormalization <axis = -1, epsilon = 1e-6> (s, before)
  m = MatMul (y, w)
  n = RMSNormalization <axis = -1, epsilon = 1e-6> (m, post)
  out = Add (n, s)"""

BRANCH = """y = If (d) <then_branch = then () => (p) { p = RMSNormalization (two, final) },
                        else_branch = other () => (q) { q = Identity (last) }>"""


def _model(
    block: str = BLOCK,
    add: str = "Add",
    added: str = "z",
    tail: str = "y = Identity (last)",
    second: str = "one",
    outputs: str = "y",
    size: float = 1.0,
) -> ir.Model:
    """Two calls of one layer, whose first norm reads what was looked up in a table."""
    text = f"""main (int64[b, s] ids) => ({outputs}) {{
      scale = Constant <value_float: float = 8.0> ()
      rows = Gather (table, ids)
      zero = Mul (rows, scale)
      one = ai.lepton.layer.Block (zero, first, before0, post0, w0)
      two = ai.lepton.layer.Block ({second}, first, before1, post1, w1)
      last = RMSNormalization <axis = -1, epsilon = 1e-6> (two, final)
      {tail}
    }}
    {LAYER}
    Block (h, first, before, post, w) => (out) {{
      z = RMSNormalization <axis = -1, epsilon = 1e-6> (h, first)
      {block.format(add=add, added=added)}
    }}"""
    weights = {"table": random(32, WIDTH), "first": random(WIDTH, seed=1, scale=size)}
    for call in range(2):
        weights[f"before{call}"] = random(WIDTH, seed=2 + call)
        weights[f"post{call}"] = random(WIDTH, seed=4 + call, scale=size)
        weights[f"w{call}"] = random(WIDTH, WIDTH, seed=6 + call)
    weights["final"] = random(WIDTH, seed=8)
    model = load(text, weights)
    for value in model.graph.initializers.values():
        assert value.const_value is not None
    return model


def test_what_norms_read_stays_the_same_to_the_bit() -> None:
    model = _model()
    before, scaled = run(model, FEEDS), LowerResidualScale()
    scaled(model)
    np.testing.assert_array_equal(before[0], run(model, FEEDS)[0])
    assert (scaled.fired, reasons(scaled)) == (4, []), "two norms add in each of two layers"
    assert ops(model) == ["Gather", "Mul", "Block", "Block", "RMSNormalization", "Identity"]
    (inner,) = (f for f in model.functions.values() if f.name == "Block")
    epsilons = [n.attributes.get_float("epsilon") for n in inner if n.op_type[:3] == "RMS"]
    small = 1e-6 / 64**2
    assert epsilons == pytest.approx([small, small, 1e-6]), "the last reads no sum"


def test_sums_beyond_fp16_fit_in() -> None:
    """Without it they are infinite, and the norm behind them gives no numbers."""
    tall = _model(size=3e4)
    before = run(tall, FEEDS)
    lost = tall.clone()
    LowerHalfPrecision()(lost)
    assert not np.isfinite(run(Emulation()(lost), FEEDS)[0]).all()
    check(LowerResidualScale(), tall, FEEDS, SAME)
    LowerHalfPrecision()(tall)
    assert_close(before, run(Emulation()(tall), FEEDS), ROUNDING[ir.DataType.FLOAT16])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (
            {"added": "w"},
            "what it adds to the sums between layers does not come from a norm alone",
        ),
        (
            {"block": BLOCK.replace("(n, s)", "(k, s)").replace("n = RMS", "k = Neg (z) n = RMS")},
            "what it adds to the sums between layers does not come from a norm alone",
        ),
        ({"add": "Sub"}, "it reads the sums between layers, and is no norm"),
        (
            {"tail": "y = MatMul (two, w0)"},
            "it reads the sums between layers, and is no norm",
        ),
        (
            {"tail": "y = my.dom.RMSNormalization (two, final)"},
            "it reads the sums between layers, and is no norm",
        ),
        (
            {"tail": "y = RMSNormalization <axis = -1> (last, two)"},  # as the weight of one
            "it reads the sums between layers, and is no norm",
        ),
        (
            {"tail": f"c = ReduceMax (last) d = Cast <to = 9> (c) {BRANCH}"},
            "it reads the sums between layers, and is no norm",
        ),
        ({"second": "rows"}, "it is given something else than the layers like it"),
        (
            {"outputs": "y, two"},
            "the sums between layers are an output of the model",
        ),
    ],
)
def test_refuses(how: dict[str, str], reason: str) -> None:
    model = _model(**how)  # type: ignore[arg-type]
    scaled = LowerResidualScale()
    scaled(model)
    assert (scaled.fired, reasons(scaled)) == (0, [reason])


def test_a_model_whose_layers_read_sums_themselves_is_left_alone() -> None:
    model = _model(BLOCK.replace("MatMul (y, w)", "MatMul (s, w)"))
    scaled = LowerResidualScale()
    scaled(model)
    assert (scaled.fired, len(reasons(scaled))) == (0, 1)
