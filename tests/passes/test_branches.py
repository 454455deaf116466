"""What a branch reads stays where it is: nothing of the branch is taken for a part of the graph."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.cleanup.sink_transpose import SinkTranspose
from lepton_passes.contract import SAME, LeptonPass, Tolerance
from lepton_passes.fusion.gelu import FuseGelu
from lepton_passes.lowering.ort.bias_gelu import LowerBiasGelu
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import check, load, ops, random
from tests.plugins.cpu_library import needs_library

FEEDS = {"x": random(1, 3, 2, 32)}
ROUNDED = Tolerance(error=0.03, cosine=0.999)
LINEAR = "t = Transpose <perm = [1, 0]> (w) h = MatMul (x, t)"


def _graph(before: str, inside: str, other: str = "h") -> str:
    return f"""main (float[1, 3, 2, 32] x, bool c) => (y) {{
      {before}
      {"n = Neg (g)" if "g)" in inside else ""}
      y = If (c) <then_branch = one () => (p) {{ {inside} }},
                  else_branch = two () => (q) {{ q = Identity ({other}) }}>
    }}"""


@pytest.mark.parametrize(
    ("kind", "before", "inside"),
    [
        (SinkTranspose, "h = Transpose <perm = [0, 2, 1, 3]> (x)", "p = RMSNormalization (h, g)"),
        (
            SinkTranspose,
            "h = Transpose <perm = [0, 2, 1, 3]> (x)",
            "p = Transpose <perm = [0, 2, 1, 3]> (h)",
        ),
        (
            FuseGelu,
            """root = Constant <value_float = 1.4142135> () one = Constant <value_float = 1.0> ()
               half = Constant <value_float = 0.5> () d = Div (x, root) h = Erf (d)""",
            "f = Add (one, h) m = Mul (x, f) p = Mul (m, half)",
        ),
        (LowerBiasGelu, f"{LINEAR} a = Add (h, g)", "p = Gelu (a)"),
    ],
)
@pytest.mark.parametrize("taken", [True, False])
def test_stays(kind: type[LeptonPass], before: str, inside: str, taken: bool) -> None:
    weights = {"g": random(32), "w": random(32, 32, seed=1)}
    text = _graph(before, inside)
    used = {name: array for name, array in weights.items() if f"{name})" in text}
    feeds = {**FEEDS, "c": np.array(taken)}
    assert check(kind(), load(text, used), feeds, SAME).fired == 0


@needs_library
@pytest.mark.parametrize("inside", ["p = Add (h, g)", "p = Gelu (h)"])
@pytest.mark.parametrize("kind", [LowerLinear, LowerNativeLinear])
def test_a_layer_takes_nothing_along(kind: type[LeptonPass], inside: str) -> None:
    weights = {"g": random(32)} if "g)" in inside else {}
    model = load(_graph(LINEAR, inside, "x"), {"w": random(32, 32, seed=1), **weights})
    WeightInt8()(model)
    feeds = {**FEEDS, "c": np.array(True)}
    assert check(kind(), model, feeds, ROUNDED).fired == 1
    assert ops(model)[1:] == ["If"]
