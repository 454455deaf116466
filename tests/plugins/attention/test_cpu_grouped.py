"""Attention on the CPU without a cache: heads that share keys, windows, softcaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

OP, SCALE = "MultiHeadAttention", 0.3
EXACT = 2e-5
ROUNDED = 0.03
"""Of the largest number: weights and values have 7 bits."""


class Texts:
    """Rows of tokens that look at each other, some of them padded on the right."""

    def __init__(self, rows: int, tokens: int, heads: int, kv_heads: int, width: int) -> None:
        draw = np.random.default_rng(3)
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        self.q, self.k, self.v = (
            draw.standard_normal((rows, tokens, of * width)).astype(np.float32)
            for of in (heads, kv_heads, kv_heads)
        )
        self.mask = np.ones((rows, tokens), np.int32)
        self.mask[-1, tokens - tokens // 3 :] = 0

    def run(self, **how: Any) -> Array:
        attributes = {"num_heads": self.heads, "unidirectional": 0, "scale": SCALE, **how}
        if self.kv_heads != self.heads:
            attributes["kv_num_heads"] = self.kv_heads
        return run(DOMAIN, OP, [self.q, self.k, self.v, self.mask], **attributes)[0]

    def wanted(self, window: int = -1, unidirectional: int = 0, softcap: float = 0.0) -> Array:
        """The formula, in fp64; a query that sees nothing gets zeros."""
        rows, tokens, _ = self.q.shape
        group = self.heads // self.kv_heads
        q, k, v = (
            np.moveaxis(x.astype(np.float64).reshape(rows, tokens, -1, self.width), 2, 1)
            for x in (self.q, self.k, self.v)
        )
        k, v = (x.repeat(group, axis=1) for x in (k, v))
        scores = q @ np.swapaxes(k, 2, 3) * SCALE
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        apart = np.arange(tokens)[:, None] - np.arange(tokens)
        seen = np.ones((tokens, tokens), bool) if window < 0 else np.abs(apart) < window
        if unidirectional:
            seen &= apart >= 0
        visible = seen & (self.mask[:, None, None, :] != 0)
        weights = np.where(visible, np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
        weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
        return np.moveaxis(weights @ v, 1, 2).reshape(self.q.shape).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 2),
    tokens=st.sampled_from([1, 2, 7, 8, 40, 64, 65, 150, 300]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 4), (6, 2), (16, 1)]),
    width=st.sampled_from([8, 16, 64]),
    how=st.fixed_dictionaries(
        {
            "window": st.sampled_from([-1, 1, 2, 33, 64, 1000]),
            "unidirectional": st.sampled_from([0, 1]),
            "softcap": st.sampled_from([0.0, 3.0]),
        }
    ),
)
def test_they_follow_the_formula(
    rows: int, tokens: int, heads: tuple[int, int], width: int, how: dict[str, Any]
) -> None:
    texts = Texts(rows, tokens, *heads, width)
    wanted = texts.wanted(**how)
    assert np.abs(texts.run(**how) - wanted).max() <= EXACT * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("window", [-1, 40])
def test_in_small_integers_they_are_near_it(window: int) -> None:
    texts = Texts(2, 200, 4, 2, 64)
    wanted = texts.wanted(window)
    found = texts.run(window=window, rounded=1)
    assert not np.array_equal(found, texts.run(window=window))
    assert np.abs(found - wanted).max() <= ROUNDED * np.abs(wanted).max()


@pytest.mark.parametrize("rounded", [0, 1])
@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
def test_all_processors_give_the_same_bits(rounded: int, defined: str) -> None:
    texts = Texts(2, 90, 4, 2, 48)
    how = {"window": 20, "rounded": rounded}
    assert np.array_equal(texts.run(**how), texts.run(defines=[defined], **how))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"kv_num_heads": 3}, "heads are no multiple of kv heads"),
        ({"kv_num_heads": 5}, "out of range"),
        ({"window": -2}, "out of range"),
        ({"kv_num_heads": 2}, "do not fit query"),
    ],
)
def test_refuses(how: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        Texts(1, 10, 4, 4, 16).run(**how)
