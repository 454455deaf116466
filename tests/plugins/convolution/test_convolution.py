"""Causal convolution on the CPU against the reference in fp64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_plugins.convolution.reference import convolve
from lepton_plugins.convolution.spec import MOST_TAPS, SPEC
from tests.plugins.cpu_library import DOMAIN, Array, needs_library, run

pytestmark = needs_library

TOLERANCE = SPEC.tolerance["float32"]
IN_PLACE = {1: 2}


def _random(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _check(
    batch: int, tokens: int, channels: int, count: int, *, biased: bool, silu: bool, in_place: bool
) -> None:
    seed = batch + tokens + channels + count
    x = _random(batch, tokens, channels, seed=seed)
    taps, past = _random(count, channels, seed=1), _random(batch, channels, count - 1, seed=2)
    bias = _random(channels, seed=3) if biased else None
    y, present = run(
        DOMAIN,
        "CausalConv",
        [x, taps, past, bias],
        outputs=2,
        in_place=IN_PLACE if in_place else None,
        activation=int(silu),
    )
    wanted, kept = convolve(x, taps, past, bias, silu=silu)
    magnitude, _ = convolve(
        np.abs(x), np.abs(taps), np.abs(past), None if bias is None else np.abs(bias), silu=False
    )
    assert y.shape == x.shape
    assert (np.abs(y - wanted) <= TOLERANCE.absolute + TOLERANCE.relative * magnitude).all()
    assert np.array_equal(present, kept)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 40),
    channels=st.integers(1, 300),
    count=st.integers(1, 9),
    biased=st.booleans(),
    silu=st.booleans(),
    in_place=st.booleans(),
)
def test_against_the_reference(
    batch: int, tokens: int, channels: int, count: int, biased: bool, silu: bool, in_place: bool
) -> None:
    _check(batch, tokens, channels, count, biased=biased, silu=silu, in_place=in_place)


@pytest.mark.parametrize("tokens", [1, 2, 3, 70])
def test_many_channels_in_place(tokens: int) -> None:
    _check(2, tokens, 6144 + 5, 4, biased=True, silu=True, in_place=True)


@pytest.mark.parametrize("tokens", [1, 100])
def test_the_most_taps(tokens: int) -> None:
    _check(1, tokens, 1200, MOST_TAPS, biased=False, silu=False, in_place=True)


@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_text_may_come_in_pieces(first: int) -> None:
    x, taps, past = _random(2, 9, 37, seed=0), _random(4, 37, seed=1), _random(2, 37, 3, seed=2)
    whole, last = run(DOMAIN, "CausalConv", [x, taps, past], outputs=2, activation=1)
    start = np.ascontiguousarray(x[:, :first])
    one, between = run(DOMAIN, "CausalConv", [start, taps, past], outputs=2, activation=1)
    rest = np.ascontiguousarray(x[:, first:])
    two, end = run(DOMAIN, "CausalConv", [rest, taps, between], outputs=2, activation=1)
    assert np.array_equal(np.concatenate([one, two], axis=1), whole)
    assert np.array_equal(end, last)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ([(9, 16), (4, 16), (1, 16, 3)], "x has to have 3 axes"),
        ([(1, 9, 16), (4, 8), (1, 16, 3)], "the taps do not fit the channels"),
        ([(1, 9, 16), (65, 16), (1, 16, 64)], "1 to 64 taps"),
        ([(1, 9, 16), (4, 16), (1, 3, 16)], "past has to be"),
        ([(1, 9, 16), (4, 16), (2, 16, 3)], "past has to be"),
        ([(1, 9, 16), (4, 16), (1, 16, 3), (8,)], "the bias does not fit"),
    ],
)
def test_refuses(shapes: list[tuple[int, ...]], reason: str) -> None:
    inputs = [_random(*shape, seed=0) for shape in shapes]
    with pytest.raises(Exception, match=reason):
        run(DOMAIN, "CausalConv", inputs, outputs=2, activation=0)


def test_refuses_another_activation() -> None:
    inputs = [_random(*shape, seed=0) for shape in [(1, 9, 16), (4, 16), (1, 16, 3)]]
    with pytest.raises(Exception, match="activation has to be 0 or 1"):
        run(DOMAIN, "CausalConv", inputs, outputs=2, activation=2)
