"""drop-identity."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.cleanup.drop_identity import DropIdentity
from lepton_passes.contract import SAME
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3)}


@pytest.mark.parametrize(
    "node",
    [
        "Identity (x)",
        "Cast <to = 1> (x)",
        "Transpose <perm = [0, 1]> (x)",
        "Dropout (x)",
    ],
)
def test_drops_what_hands_on(node: str) -> None:
    model = load(f"main (float[a, b] x) => (float[a, b] y) {{ h = {node} y = Relu (h) }}")
    assert check(DropIdentity(), model, FEEDS, SAME).fired == 1
    assert ops(model) == ["Relu"]


@pytest.mark.parametrize("node", ["Cast <to = 11> (x)", "Transpose <perm = [1, 0]> (x)"])
def test_keeps_what_does_something(node: str) -> None:
    model = load(f"main (float[a, b] x) => (y) {{ h = {node} y = Neg (h) }}")
    assert check(DropIdentity(), model, FEEDS, SAME).fired == 0
    assert len(ops(model)) == 2


def test_refuses_to_rename_an_input() -> None:
    model = load("main (float[a, b] x) => (float[a, b] y) { y = Identity (x) }")
    done = check(DropIdentity(), model, {"x": np.ones((1, 1), np.float32)}, SAME)
    assert reasons(done) == ["it gives an input or another output a second name"]
