"""Attention on the CPU beside caches of bytes, 32 of which share a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.attention.test_cpu_attention import Cached
from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

OP = "GroupQueryAttention"
SHARE = 32
FEW = 8  # queries that share keys, up to which they are words of 16 bits
TOLERANCE = 1e-3  # of numbers about 1: queries have 16 bits, of the largest number


def _rounded(x: Array) -> Array:
    """A cache of floats as one of bytes: numbers, then scales."""
    blocks = x.reshape(*x.shape[:-1], x.shape[-1] // SHARE, SHARE)
    scales = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float16)
    factor = np.float32(1) / np.where(scales > 0, scales, np.float32(np.inf)).astype(np.float32)
    numbers = np.rint(blocks * factor[..., None]).clip(-127, 127).astype(np.int8)
    return np.concatenate([numbers.reshape(x.shape), scales.view(np.int8)], -1)


def _numbers(held: Array) -> Array:
    """What a cache of bytes stands for."""
    width = held.shape[-1] * 16 // 17
    bytes_, scales = held[..., :width], np.ascontiguousarray(held[..., width:]).view(np.float16)
    with np.errstate(invalid="ignore"):  # behind what is filled may be anything
        numbers: Array = bytes_ * np.repeat(scales.astype(np.float32), SHARE, -1)
    return numbers


def _bytes(cached: Cached, **how: Any) -> list[Array]:
    """Output and both caches, where those are of bytes."""
    defines = how.pop("defines", ())
    inputs, attributes = cached._given(DOMAIN, how.pop("rotary", True), False, (), None, how)
    inputs[3:5] = [_rounded(cache) for cache in inputs[3:5]]
    return run(DOMAIN, OP, inputs, outputs=3, bytes_=[1, 2], defines=defines, **attributes)


def _whole(cached: Cached, caches: list[Array], **how: Any) -> Array:
    """The output beside the same numbers in floats, which have the new tokens already."""
    inputs, attributes = cached._given(DOMAIN, how.pop("rotary", True), False, (), None, how)
    inputs[3:5] = [_numbers(cache) for cache in caches]
    inputs[1:3] = [each[:, :0] for each in inputs[1:3]]
    return run(DOMAIN, OP, inputs, outputs=1, **attributes)[0]


@settings(max_examples=60, deadline=None)
@given(
    past=st.lists(st.integers(0, 200), min_size=1, max_size=3),
    new=st.sampled_from([1, 1, 2, 5, 9, 40, 70]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 1), (3, 1), (6, 2), (16, 1), (7, 7)]),
    width=st.sampled_from([32, 64, 96, 128, 160, 256]),
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
    y, *caches = _bytes(cached, **more)
    assert [cache.dtype for cache in caches] == [np.int8, np.int8]
    expected = _whole(cached, caches, **more)
    if new * heads[0] // heads[1] > FEW:
        assert np.array_equal(y, expected)
    assert y == pytest.approx(expected, abs=TOLERANCE)
    floats = cached.run(DOMAIN, **more)[1:]
    for index, (held, made) in enumerate(zip(cached.caches, caches, strict=True)):
        for row, length in enumerate(past):
            ours, place = made[row], index * len(past) + row
            assert np.array_equal(ours[:, :length], _rounded(held[row, :, :length]))
            appended = _rounded(floats[place][:, length:])
            assert np.array_equal(ours[:, length : length + new], appended)


def test_they_are_near_those_in_floats() -> None:
    cached = Cached([150], 1, 4, 2, 64, 200)
    y = _bytes(cached)[0]
    assert y == pytest.approx(cached.run(DOMAIN, rotary=True)[0], abs=2e-2)


def test_a_decode_step_in_place() -> None:
    cached = Cached([40], 1, 4, 2, 32, 64)
    inputs, attributes = cached._given(DOMAIN, True, False, (), None, {})
    inputs[3:5] = [_rounded(cache) for cache in inputs[3:5]]
    how = {"outputs": 3, "bytes_": [1, 2], **attributes}
    apart = run(DOMAIN, OP, inputs, **how)
    together = run(DOMAIN, OP, inputs, in_place={1: 3, 2: 4}, **how)
    assert np.array_equal(apart[0], together[0])
    for ours, theirs in zip(together[1:], apart[1:], strict=True):
        assert np.array_equal(ours[..., :41, :], theirs[..., :41, :])


@pytest.mark.parametrize("new", [1, 3, 70])
@pytest.mark.parametrize("heads", [(6, 2), (1, 1), (8, 2)])
@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
def test_all_processors_give_the_same_bits(new: int, heads: tuple[int, int], defined: str) -> None:
    cached = Cached([71], new, *heads, 96, 160)
    for ours, theirs in zip(_bytes(cached), _bytes(cached, defines=[defined]), strict=True):
        assert np.array_equal(ours[..., : 71 + new, :], theirs[..., : 71 + new, :])


@pytest.mark.parametrize("new", [1, 20])
def test_numbers_of_any_size_have_a_scale(new: int) -> None:
    """Beyond the largest scale is the largest byte; what is too small for a scale is 0."""
    cached = Cached([5], new, 2, 1, 64, 40)
    cached.v[0, 0, :SHARE] = 1e9
    cached.v[0, 0, SHARE:] = 1e-9
    y, _, values = _bytes(cached)
    assert np.isfinite(y).all()
    found = _numbers(values)[0, 0, 5]
    assert np.all(found[:SHARE] == np.float32(127 * 65504))
    assert np.all(found[SHARE:] == 0)


@pytest.mark.parametrize("new", [1, 40])
@pytest.mark.parametrize("what", ["q", "k", "v"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_does_not_pass_for_one(what: str, new: int, wrong: float) -> None:
    cached = Cached([20], new, 4, 2, 32, 80)
    getattr(cached, what)[0, 0, :32] = wrong
    assert np.isnan(_bytes(cached)[0]).any()


@pytest.mark.parametrize(
    ("width", "said"), [(2048, "too wide for a cache"), (48, "no multiple of 32")]
)
def test_refuses_heads_that_do_not_fit(width: int, said: str) -> None:
    cached = Cached([2], 1, 1, 1, width, 8)
    inputs, attributes = cached._given(DOMAIN, False, False, (), None, {})
    row = width + width // SHARE * 2
    inputs[3:5] = [np.zeros((1, 1, 8, row), np.int8) for _ in range(2)]
    with pytest.raises(Exception, match=said):
        run(DOMAIN, OP, inputs, outputs=3, bytes_=[1, 2], **attributes)


def test_refuses_rows_without_scales() -> None:
    inputs, attributes = Cached([10], 1, 4, 2, 32, 64)._given(DOMAIN, True, False, (), None, {})
    inputs[3:5] = [cache.astype(np.int8) for cache in inputs[3:5]]
    with pytest.raises(Exception, match="the cache does not fit query"):
        run(DOMAIN, OP, inputs, outputs=3, bytes_=[1, 2], **attributes)
