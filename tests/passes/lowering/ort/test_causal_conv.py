"""lower-causal-conv."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.causal_conv import LowerCausalConv
from tests.passes.support import check, load, ops, random

TEXT = """main (float[b, 6, s] x, float[b, 6, 3] past) => (y, present) {
    y, present = ai.lepton.CausalConvWithState <channels = 6> (x, w, past)
}"""


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_one_kernel(tokens: int) -> None:
    """As many tokens as the state has places, fewer and more."""
    model = load(TEXT, {"w": random(6, 1, 4, seed=1)})
    feeds = {"x": random(2, 6, tokens), "past": random(2, 6, 3, seed=2)}
    assert check(LowerCausalConv(), model, feeds, CLOSE).fired == 1
    assert ops(model) == ["CausalConvWithState"]
    assert {node.domain for node in model.graph} == {"com.microsoft"}


def test_leaves_what_is_lowered() -> None:
    model = load(TEXT, {"w": random(6, 1, 4, seed=1)})
    feeds = {"x": random(2, 6, 5), "past": np.zeros((2, 6, 3), np.float32)}
    check(LowerCausalConv(), model, feeds, CLOSE)
    assert check(LowerCausalConv(), model, feeds, CLOSE).fired == 0
