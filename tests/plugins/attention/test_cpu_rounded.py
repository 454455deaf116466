"""Attention in small integers against fp32, and against numbers that are rounded alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_plugins.attention.spec import FEW_ROUNDED
from tests.plugins.attention.test_cpu_attention import MICROSOFT, Cached, _close, _encoder, _random
from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

# Of the norm of the results: values have 63 levels each way, weights 127 in a block.
CLOSE = 0.025
# Of the largest value: the rounding of weights alone.
WEIGHTS = 0.01


def _far(ours: Array, theirs: Array) -> float:
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def _levels(x: Array, levels: int) -> Array:
    """Rows of the last axis, rounded to so many levels each way."""
    scale = np.abs(x).max(axis=-1, keepdims=True) / levels
    return np.asarray(np.rint(x / scale) * scale, dtype=np.float64)


def _attention(q: Array, k: Array, v: Array, scale: float) -> Array:
    """Causal, of (heads, tokens, width), in float64."""
    scores = scale * q @ np.swapaxes(k, -1, -2)
    tokens = scores.shape[-1]
    scores[..., ~np.tri(tokens, dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ v)


@settings(max_examples=60, deadline=None)
@given(
    past=st.lists(st.integers(0, 200), min_size=1, max_size=3),
    new=st.integers(33, 150),
    heads=st.sampled_from([(1, 1), (4, 1), (6, 2), (16, 1)]),
    width=st.sampled_from([8, 16, 24, 64, 80, 256]),
    more=st.fixed_dictionaries(
        {
            "local_window_size": st.sampled_from([-1, 1, 16, 37, 64, 100]),
            "softcap": st.sampled_from([0.0, 5.0]),
            "rotary": st.booleans(),
        }
    ),
)
def test_is_close_to_fp32(
    past: list[int], new: int, heads: tuple[int, int], width: int, more: dict[str, Any]
) -> None:
    cached = Cached(past, new, *heads, width, max(past) + new)
    more = {"scale": width**-0.5, **more}
    rounded, *caches = cached.run(DOMAIN, rounded=1, **more)
    plain, *others = cached.run(DOMAIN, **more)
    assert 0 < _far(rounded, plain) <= CLOSE
    assert all(np.array_equal(a, b) for a, b in zip(caches, others, strict=True))


@pytest.mark.parametrize("width", [64, 256, 512])
@pytest.mark.parametrize("tokens", [33, 64, 65, 200])
def test_queries_and_keys_have_12_bits_and_values_7(width: int, tokens: int) -> None:
    cached = Cached([0], tokens, 2, 2, width, tokens)
    scale = 3 * width**-0.5
    ours = cached.run(DOMAIN, rotary=False, rounded=1, scale=scale)[0]

    def apart(x: Array, levels: int) -> Array:
        return _levels(np.swapaxes(x[0].reshape(tokens, 2, width), 0, 1), levels)

    q, k, v = apart(cached.q, 2047), apart(cached.k, 2047), apart(cached.v, 63)
    wanted = np.swapaxes(_attention(q, k, v, scale), 0, 1).reshape(ours.shape)
    assert np.abs(ours - wanted).max() <= WEIGHTS * np.abs(v).max()


def test_one_key_is_its_value_in_7_bits() -> None:
    """What a weight of 1 gives is exact: nothing is left but the levels of the value."""
    cached = Cached([0], 20, 2, 1, 64, 32)
    ours = cached.run(DOMAIN, rotary=False, rounded=1, local_window_size=1)[0]
    wanted = np.tile(_levels(cached.v, 63), 2)
    assert np.abs(ours - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
@pytest.mark.parametrize("width", [8, 16, 24, 32, 40, 80, 256])
def test_all_processors_give_the_same_bits(width: int, defined: str) -> None:
    for past, new in (([0], 70), ([130], 45), ([3, 90], 11)):
        case = Cached(past, new, 6, 2, width, 180)
        for more in ({}, {"softcap": 3.0}, {"local_window_size": 9}):
            how: dict[str, Any] = {"rotary": False, "rounded": 1, **more}
            found = case.run(DOMAIN, defines=[defined], **how)[0]
            assert np.array_equal(found, case.run(DOMAIN, **how)[0]), (past, more)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("tokens", [33, 64, 65, 130])
def test_encoder(tokens: int, causal: int) -> None:
    q, k, v = (_random(3, tokens, 256, seed=s) for s in range(3))
    mask = np.ones((3, tokens), np.int32)
    mask[1, (tokens + 1) // 2 :] = 0
    mask[2, 1:] = 0
    for given_mask in (None, mask):
        ours = _encoder(DOMAIN, q, k, v, given_mask, unidirectional=causal, rounded=1)
        theirs = _encoder(MICROSOFT, q, k, v, given_mask, unidirectional=causal)
        assert _far(ours, theirs) <= CLOSE


@pytest.mark.parametrize("length", [9, 32, 33, 90])
def test_a_text_gets_the_numbers_that_it_gets_alone(length: int) -> None:
    """Padding is no query: beside a long text a short one stays in fp32, too."""
    q, k, v = (_random(2, 130, 256, seed=s) for s in range(3))
    mask = np.ones((2, 130), np.int32)
    mask[1, length:] = 0
    alone = [np.ascontiguousarray(x[1:, :length]) for x in (q, k, v)]
    beside = _encoder(DOMAIN, q, k, v, mask, rounded=1)[1:, :length]
    ours = _encoder(DOMAIN, *alone, None, rounded=1)
    assert np.array_equal(beside, ours)
    assert np.array_equal(ours, _encoder(DOMAIN, *alone, None)) == (length <= FEW_ROUNDED)


def test_padding_in_front_is_no_query_either() -> None:
    q, k, v = (_random(1, 130, 256, seed=s) for s in range(3))
    mask = np.zeros((1, 130), np.int32)
    mask[0, -FEW_ROUNDED:] = 1
    found, plain = (_encoder(DOMAIN, q, k, v, mask, rounded=n) for n in (1, 0))
    assert np.array_equal(found, plain)


@pytest.mark.parametrize("length", [9, 32, 33, 90])
@pytest.mark.parametrize("hides", [-np.inf, float(np.finfo(np.float32).min), -1e4])
def test_padding_that_a_bias_hides_is_no_query_either(length: int, hides: float) -> None:
    q, k, v = (_random(2, 130, 256, seed=s) for s in range(3))
    bias = _random(1, 4, 130, 130, seed=4).repeat(2, axis=0)
    bias[1, ..., length:] = hides
    alone = [np.ascontiguousarray(x[1:, :length]) for x in (q, k, v)]
    own = np.ascontiguousarray(bias[1:, :, :length, :length])
    attributes = {"num_heads": 4, "scale": 0.25, "unidirectional": 0}
    beside, ours, plain = (
        run(DOMAIN, "MultiHeadAttention", [*given, None, added], **attributes, rounded=rounded)[0]
        for given, added, rounded in (([q, k, v], bias, 1), (alone, own, 1), (alone, own, 0))
    )
    assert np.array_equal(beside[1:, :length], ours)
    assert np.array_equal(ours, plain) == (length <= FEW_ROUNDED)


@pytest.mark.parametrize("length", [9, FEW_ROUNDED // 2, FEW_ROUNDED // 2 + 1, 90])
def test_a_padded_prompt_gets_the_numbers_that_it_gets_alone(length: int) -> None:
    """Two heads share a key: half as many tokens are queries enough."""
    both, alone = (Cached([0] * rows, 130, 4, 2, 64, 130) for rows in (2, 1))
    both.lengths[1] = length - 1
    for name in ("q", "k", "v"):
        setattr(alone, name, np.ascontiguousarray(getattr(both, name)[1:, :length]))
    alone.caches = [cache[1:] for cache in both.caches]
    alone.new, alone.lengths, alone.total = length, both.lengths[1:], np.array([length], np.int32)
    beside = both.run(DOMAIN, rotary=True, rounded=1)[0][1:, :length]
    ours, plain = (alone.run(DOMAIN, rotary=True, rounded=n)[0] for n in (1, 0))
    assert np.array_equal(beside, ours)
    assert np.array_equal(ours, plain) == (2 * length <= FEW_ROUNDED)


def test_a_bias() -> None:
    q, k, v = (_random(2, 70, 128, seed=s) for s in range(3))
    bias = _random(1, 2, 70, 70, seed=4)
    attributes = {"num_heads": 2, "scale": 0.125, "unidirectional": 0}
    rounded, plain = (
        run(DOMAIN, "MultiHeadAttention", [q, k, v, None, bias], **attributes, **how)[0]
        for how in ({"rounded": 1}, {})
    )
    assert 0 < _far(rounded, plain) <= CLOSE


@pytest.mark.parametrize(("new", "width"), [(2, 64), (8, 64), (40, 520)])
def test_few_queries_and_wide_heads_are_those_of_fp32(new: int, width: int) -> None:
    cached = Cached([100], new, 4, 1, width, 160)
    rounded, plain = (cached.run(DOMAIN, rotary=False, **how)[0] for how in ({"rounded": 1}, {}))
    assert np.array_equal(rounded, plain)


@pytest.mark.parametrize("magnitude", [1e-42, 1e-33, 1e-20, 1e15, 1e30])
def test_tiny_and_huge_numbers(magnitude: float) -> None:
    """They have the levels of all others; what is too small for a scale is 0."""
    cached = Cached([0], 30, 2, 1, 64, 32)
    cached.k *= np.float32(magnitude)
    cached.q /= np.float32(max(magnitude, 1e-30))
    cached.v *= np.float32(magnitude)
    rounded, plain = (cached.run(DOMAIN, rotary=False, **how)[0] for how in ({"rounded": 1}, {}))
    assert np.abs(rounded - plain).max() <= max(0.05 * np.abs(plain).max(), 1e-29)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["q", "k", "v"])
def test_what_is_no_number_does_not_pass_for_one(what: str, value: float) -> None:
    cached = Cached([20], 40, 4, 2, 16, 80)
    getattr(cached, what)[0, 0, 3] = value  # of the first new token, and the first head
    y = cached.run(DOMAIN, rotary=False, rounded=1)[0].reshape(40, 4, 16)
    heads = 1 if what == "q" else 2  # that share these keys
    tokens = 1 if what == "q" else 40
    assert np.isnan(y[:tokens, :heads]).all()
    assert np.isfinite(y[:, heads:]).all()
    assert np.isfinite(y[tokens:]).all()


@pytest.mark.parametrize("rounded", [-1, 2])
def test_refuses_another_way_of_rounding(rounded: int) -> None:
    with pytest.raises(Exception, match="rounded is out of range"):
        Cached([10], 1, 4, 1, 32, 32).run(DOMAIN, rotary=False, rounded=rounded)


def test_zeros_stay_zeros() -> None:
    cached = Cached([0], 30, 2, 1, 64, 32)
    cached.v[:] = 0
    assert not cached.run(DOMAIN, rotary=False, rounded=1)[0].any()
    cached.q[:] = cached.k[:] = 0
    cached.v[:] = 1
    _close(cached.run(DOMAIN, rotary=False, rounded=1)[0], np.ones((1, 30, 128), np.float32))
