"""Attention on the CPU beside caches of halves (fp16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.attention.test_cpu_attention import Cached
from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

HALF, MOST = np.float16, 65504
OP = "GroupQueryAttention"


def _halves(cached: Cached, **how: Any) -> list[Array]:
    """Output and both caches, where those are of halves."""
    defines = how.pop("defines", ())
    inputs, attributes = cached._given(DOMAIN, how.pop("rotary", True), False, (), None, how)
    inputs[3:5] = [cache.astype(HALF) for cache in inputs[3:5]]
    return run(DOMAIN, OP, inputs, outputs=3, halves=[1, 2], defines=defines, **attributes)


def _whole(cached: Cached, caches: list[Array], new: bool, **how: Any) -> Array:
    """The output beside the same numbers in floats; without new keys where ``new`` is not."""
    inputs, attributes = cached._given(DOMAIN, how.pop("rotary", True), False, (), None, how)
    inputs[3:5] = [cache.astype(np.float32) for cache in caches]
    if not new:
        inputs[1:3] = [each[:, :0] for each in inputs[1:3]]
    return run(DOMAIN, OP, inputs, outputs=3 if new else 1, **attributes)[0]


@settings(max_examples=60, deadline=None)
@given(
    past=st.lists(st.integers(0, 200), min_size=1, max_size=3),
    new=st.sampled_from([1, 1, 2, 5, 9, 40, 70]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 1), (3, 1), (6, 2), (16, 1), (7, 7)]),
    width=st.sampled_from([8, 16, 48, 128]),
    more=st.fixed_dictionaries(
        {
            "local_window_size": st.sampled_from([-1, 1, 37, 64]),
            "softcap": st.sampled_from([0.0, 5.0]),
            "rotary": st.booleans(),
            "rounded": st.sampled_from([0, 1]),
        }
    ),
)
def test_numbers_are_those_of_the_cache(
    past: list[int], new: int, heads: tuple[int, int], width: int, more: dict[str, Any]
) -> None:
    """New keys and values are read as the cache holds them, and what it held is not touched."""
    cached = Cached(past, new, *heads, width, 300)
    y, *caches = _halves(cached, **more)
    assert [cache.dtype for cache in caches] == [HALF, HALF]
    assert np.array_equal(y, _whole(cached, caches, new=False, **more))
    floats = cached.run(DOMAIN, **more)[1:]
    for index, (held, made) in enumerate(zip(cached.caches, caches, strict=True)):
        for row, length in enumerate(past):
            ours, place = made[row], index * len(past) + row
            assert np.array_equal(ours[:, :length], held[row, :, :length].astype(HALF))
            appended = floats[place][:, length:].astype(HALF)
            assert np.array_equal(ours[:, length : length + new], appended)


def test_a_decode_step_in_place() -> None:
    cached = Cached([40], 1, 4, 2, 32, 64)
    inputs, attributes = cached._given(DOMAIN, True, False, (), None, {})
    inputs[3:5] = [cache.astype(HALF) for cache in inputs[3:5]]
    how = {"outputs": 3, "halves": [1, 2], **attributes}
    apart = run(DOMAIN, OP, inputs, **how)
    together = run(DOMAIN, OP, inputs, in_place={1: 3, 2: 4}, **how)
    assert np.array_equal(apart[0], together[0])
    for ours, theirs in zip(together[1:], apart[1:], strict=True):
        assert np.array_equal(ours[..., :41, :], theirs[..., :41, :])


@pytest.mark.parametrize("new", [1, 3, 70])
@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
def test_all_processors_give_the_same_bits(new: int, defined: str) -> None:
    cached = Cached([70], new, 6, 2, 48, 160)
    for ours, theirs in zip(_halves(cached), _halves(cached, defines=[defined]), strict=True):
        assert np.array_equal(ours[..., : 70 + new, :], theirs[..., : 70 + new, :])


@pytest.mark.parametrize("new", [1, 20])
def test_what_is_beyond_a_half_becomes_the_largest(new: int) -> None:
    cached = Cached([5], new, 2, 1, 16, 40)
    cached.v[0, 0, :2] = [1e6, -1e9]
    y, _, values = _halves(cached)
    assert values[0, 0, 5, :2].tolist() == [MOST, -MOST]
    assert np.isfinite(y).all()


@pytest.mark.parametrize("new", [1, 40])
@pytest.mark.parametrize("what", ["k", "v"])
def test_what_is_no_number_does_not_pass_for_one(what: str, new: int) -> None:
    cached = Cached([20], new, 4, 2, 16, 80)
    getattr(cached, what)[0, 0, :16] = np.nan
    assert np.isnan(_halves(cached)[0]).any()


def test_refuses_floats_beside_halves() -> None:
    inputs, attributes = Cached([10], 1, 4, 2, 32, 64)._given(DOMAIN, True, False, (), None, {})
    inputs[3] = inputs[3].astype(HALF)
    with pytest.raises(Exception, match="no kernel def matches"):
        run(DOMAIN, OP, inputs, outputs=3, halves=[1], **attributes)


def test_refuses_heads_that_are_too_wide() -> None:
    cached = Cached([2], 1, 1, 1, 2048, 8)
    with pytest.raises(Exception, match="too wide for a cache of halves"):
        _halves(cached, rotary=False)
