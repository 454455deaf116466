"""lower-largest."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import SAME
from lepton_passes.lowering.ort.largest import LowerLargest
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 8)}
IDS = {"x": np.random.default_rng(0).integers(-9, 9, (2, 3))}


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_axis_goes(axis: int) -> None:
    model = load(
        f"main (float[b, s, 8] x) => (y) {{ a = Constant <value_ints = [{axis}]> () "
        "y = ReduceMax <keepdims = 0> (x, a) }"
    )
    assert check(LowerLargest(), model, FEEDS, SAME).fired == 1
    assert [op for op in ops(model) if op != "Constant"] == ["TopK", "Squeeze"]


def test_the_axis_stays() -> None:
    model = load(
        "main (float[b, s, 8] x) => (y) { a = Constant <value_ints = [1]> () y = ReduceMax (x, a) }"
    )
    assert check(LowerLargest(), model, FEEDS, SAME).fired == 1
    assert "Squeeze" not in ops(model)
    assert "TopK" in ops(model)


def test_whole_numbers() -> None:
    """Which token is a text's last."""
    model = load(
        "main (int64[b, s] x) => (y) { a = Constant <value_ints = [1]> () "
        "y = ReduceMax <keepdims = 0> (x, a) }"
    )
    assert check(LowerLargest(), model, IDS, SAME).fired == 1
    assert "ReduceMax" not in ops(model)


@pytest.mark.parametrize(
    "axes", ["a = Constant <value_ints = [1, 2]> () y = ReduceMax (x, a)", "y = ReduceMax (x)"]
)
def test_leaves_other_than_one_axis(axes: str) -> None:
    model = load(f"main (float[b, s, 8] x) => (y) {{ {axes} }}")
    made = LowerLargest()
    assert check(made, model, FEEDS, SAME).fired == 0
    assert reasons(made) == ["of other than one axis that is known"]
    assert "ReduceMax" in ops(model)
