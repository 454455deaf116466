"""lower-normed-sum."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_norm import LowerNativeNorm
from lepton_passes.lowering.ort.normed_sum import LowerNormedSum
from lepton_passes.lowering.ort.skip_norm import LowerSkipNorm
from tests.passes.support import Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

FEEDS = {"x": random(2, 3, 24), "skip": random(2, 3, 24, seed=1)}
WEIGHTS = {"g": random(24, seed=2), "h": random(24, seed=3), "c": random(24, seed=4)}
NORM = "n = RMSNormalization <axis = -1> (x, g)"


def _model(body: str, outputs: str = "y", weights: Arrays = WEIGHTS) -> ir.Model:
    text = f"main (float[b, s, 24] x, float[b, s, 24] skip) => ({outputs}) {{ {body} }}"
    model = load(text, {name: array for name, array in weights.items() if f" {name}" in body})
    LowerSkipNorm()(model)
    LowerNativeNorm()(model)
    return model


@pytest.mark.parametrize("sum", ["Add (n, skip)", "Add (skip, n)"])
@pytest.mark.parametrize("norm", [NORM, "n = LayerNormalization <epsilon = 0.01> (x, g)"])
def test_a_sum_behind_a_norm(norm: str, sum: str) -> None:
    model = _model(f"{norm} y = {sum}")
    assert check(LowerNormedSum(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Normalization"]
    assert [value is not None for value in model.graph[0].inputs] == [True, True, False, True]


@pytest.mark.parametrize("sum", ["Add (n, skip)", "Add (skip, n)"])
@pytest.mark.parametrize("summed", [False, True])
def test_a_sum_between_two_norms(sum: str, summed: bool) -> None:
    more, outputs = (" z = Neg (s)", "y, z") if summed else ("", "y")
    model = _model(f"{NORM} s = {sum} y = RMSNormalization <axis = -1> (s, h){more}", outputs)
    assert check(LowerNormedSum(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["SkipNormalization", *(["Neg"] if summed else [])]
    assert len(model.graph[0].outputs) == 1 + summed


def test_both_sides_are_normed() -> None:
    """One is taken in; the other is what the residual is elsewhere."""
    model = _model(f"{NORM} m = RMSNormalization <axis = -1> (skip, h) y = Add (n, m)")
    assert check(LowerNormedSum(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Normalization", "Normalization"]


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        (f"{NORM} y = Add (n, skip) z = Neg (n)", "y, z", "something else reads what is normed"),
        (f"{NORM} y = Add (n, skip)", "y, n", "something else reads what is normed"),
        (f"{NORM} y = Add (n, n)", "y", "something else reads what is normed"),
        (
            "n = LayerNormalization (x, g, c) y = Add (n, skip)",
            "y",
            "the norm has a bias",
        ),
        (
            f"{NORM} s = Add (n, skip) y = RMSNormalization <axis = -1, epsilon = 0.5> (s, h)",
            "y",
            "the two norms are of other kinds",
        ),
        (
            f"{NORM} s = Add (n, skip) y = LayerNormalization (s, h, c)",
            "y",
            "the two norms are of other kinds",
        ),
        (
            f"{NORM} t = Constant <value = float[1, 1, 24] {{{', '.join(['0.5'] * 24)}}}> () "
            "y = Add (n, t)",
            "y",
            "the two sides of the sum differ in size, or it is unknown",
        ),
    ],
)
def test_refuses(body: str, outputs: str, reason: str) -> None:
    model = _model(body, outputs)
    before = ops(model)
    found = check(LowerNormedSum(), model, FEEDS, CLOSE)
    assert (found.fired, reasons(found)) == (0, [reason])
    assert ops(model) == before
