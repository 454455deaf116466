"""lower-linear-attention."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.linear_attention import LowerLinearAttention
from tests.passes.support import check, load, ops, random

HEADS, KEY, VALUE = 2, 4, 3


def _text(decay: int, beta: str) -> str:
    return f"""main (float[b, s, 8] q, float[b, s, 8] k, float[b, s, 6] v, float[b, 2, 4, 3] past,
        float[b, s, {decay}] g{f", float[b, s, 2] {beta}" if beta else ""}) => (y, present) {{
        y, present = ai.lepton.LinearAttention <q_num_heads = 2, kv_num_heads = 2, scale = 0.7>
            (q, k, v, past, g{f", {beta}" if beta else ""})
    }}"""


def _feeds(tokens: int, decay: int, beta: str) -> dict[str, np.ndarray]:
    shapes = {"q": HEADS * KEY, "k": HEADS * KEY, "v": HEADS * VALUE, "g": decay}
    feeds = {n: random(2, tokens, w, seed=i) * 0.5 for i, (n, w) in enumerate(shapes.items())}
    feeds["g"] = -np.abs(feeds["g"])
    feeds["past"] = random(2, HEADS, KEY, VALUE, seed=9)
    return feeds | ({beta: np.abs(random(2, tokens, HEADS, seed=8))} if beta else {})


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("beta", ["", "beta"], ids=["gated", "gated delta"])
@pytest.mark.parametrize("decay", [HEADS, HEADS * KEY], ids=["by head", "by row"])
def test_one_kernel(tokens: int, beta: str, decay: int) -> None:
    model = load(_text(decay, beta))
    assert check(LowerLinearAttention(), model, _feeds(tokens, decay, beta), CLOSE).fired == 1
    assert ops(model) == ["LinearAttention"]
    (node,) = model.graph
    assert node.domain == "com.microsoft"
    assert node.attributes.get_string("update_rule") == ("gated_delta" if beta else "gated")


def test_leaves_what_is_lowered() -> None:
    model = load(_text(HEADS, "beta"))
    feeds = _feeds(5, HEADS, "beta")
    check(LowerLinearAttention(), model, feeds, CLOSE)
    assert check(LowerLinearAttention(), model, feeds, CLOSE).fired == 0
