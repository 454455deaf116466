"""Sinks of attention on the CPU: scores without a value, beside caches of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.attention.test_cpu_attention import EXACT, MICROSOFT, Cached
from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

OP = "GroupQueryAttention"
# Where the op of each domain has them.
PLACES = {MICROSOFT: 11, DOMAIN: 14}
ROUNDED = 0.03
"""Of the largest number: weights and values have 7 bits."""


def attended(cached: Cached, sinks: Array, domain: str = DOMAIN, **how: Any) -> Array:
    """The output beside caches as they are; those of halves where ``half`` says so."""
    half, defines = how.pop("half", False), how.pop("defines", ())
    inputs, attributes = cached._given(domain, how.pop("rotary", True), False, (), None, how)
    inputs += [*[None] * (PLACES[domain] - len(inputs)), sinks]
    if half:
        inputs[3:5] = [cache.astype(np.float16) for cache in inputs[3:5]]
        attributes["halves"] = [1, 2]
    return run(domain, OP, inputs, outputs=3, defines=defines, **attributes)[0]


def some(heads: int, around: float = 0.0) -> Array:
    """One for each head, at the height of some scores."""
    made = np.random.default_rng(7).standard_normal(heads) * 3 + around
    return made.astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    past=st.lists(st.integers(0, 300), min_size=1, max_size=3),
    new=st.sampled_from([1, 1, 2, 5, 9, 40, 70]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 1), (8, 1), (6, 2), (16, 1), (40, 1)]),
    width=st.sampled_from([16, 32, 80]),
    window=st.sampled_from([-1, 1, 37, 64]),
    around=st.sampled_from([-60.0, 0.0, 60.0]),
)
def test_they_are_those_of_onnxruntime(
    past: list[int],
    new: int,
    heads: tuple[int, int],
    width: int,
    window: int,
    around: float,
) -> None:
    rows = past if new == 1 else past[:1]  # of more, onnxruntime takes a single token each
    cached = Cached(rows, new, *heads, width, 400)
    sinks = some(heads[0], around)
    ours = attended(cached, sinks, local_window_size=window)
    theirs = attended(cached, sinks, MICROSOFT, local_window_size=window)
    assert np.abs(ours - theirs).max() <= EXACT * max(1.0, float(np.abs(theirs).max()))


@pytest.mark.parametrize("new", [1, 40])
def test_far_below_all_scores_they_take_nothing_and_far_above_everything(new: int) -> None:
    cached = Cached([30], new, 4, 2, 16, 90)
    without = cached.run(DOMAIN, rotary=True)[0]
    low, high = (np.full(4, edge, np.float32) for edge in (-1e30, 1e30))
    assert np.array_equal(attended(cached, low), without)
    assert not attended(cached, high).any()
    assert not np.isnan(attended(cached, np.full(4, -np.inf, np.float32))).any()


@pytest.mark.parametrize("new", [1, 3, 70])
def test_beside_halves_they_are_the_same(new: int) -> None:
    cached = Cached([120], new, 8, 1, 64, 256)
    for name in ("k", "v"):  # what goes to the cache is made of halves, too
        made = getattr(cached, name)
        setattr(cached, name, made.astype(np.float16).astype(np.float32))
    cached.caches = [c.astype(np.float16).astype(np.float32) for c in cached.caches]
    ours = attended(cached, some(8), half=True, rotary=False)
    assert np.array_equal(ours, attended(cached, some(8), rotary=False))


def test_beside_small_integers_they_take_their_share() -> None:
    cached = Cached([0], 70, 4, 1, 64, 90)
    exact = attended(cached, some(4))
    rounded = attended(cached, some(4), rounded=1)
    assert not np.array_equal(rounded, exact)
    assert np.abs(rounded - exact).max() <= ROUNDED * np.abs(exact).max()


@pytest.mark.parametrize("new", [1, 3, 70])
@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
def test_all_processors_give_the_same_bits(new: int, defined: str) -> None:
    cached = Cached([70], new, 6, 2, 48, 160)
    ours = attended(cached, some(6))
    assert np.array_equal(ours, attended(cached, some(6), defines=[defined]))


def test_there_is_one_for_each_head() -> None:
    with pytest.raises(Exception, match="not one sink for each head"):
        attended(Cached([5], 1, 4, 2, 16, 40), some(2))
