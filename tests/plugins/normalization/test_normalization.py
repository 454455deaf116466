"""Norms on the CPU against the reference in fp64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lepton_plugins.normalization.reference import normalize
from lepton_plugins.normalization.spec import SPEC
from tests.plugins.cpu_library import DOMAIN, Array, needs_library, run

pytestmark = needs_library

EPSILON = 1e-5
TOLERANCE = SPEC.tolerance["float32"]


def _random(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(found: Array, wanted: Array, rounding: Array | float = 0.0) -> None:
    assert found.shape == wanted.shape
    allowed = TOLERANCE.absolute + TOLERANCE.relative * np.abs(wanted) + rounding
    assert (np.abs(found - wanted) <= allowed).all()


def _rounding(x: Array, gamma: Array, rms: bool) -> Array | float:
    """What one rounding of the mean to fp32 comes to in a norm: much, where numbers lie so close
    together that little but epsilon is left to divide by."""
    if rms:
        return 0.0
    spread = np.sqrt(x.astype(np.float64).var(-1, keepdims=True) + EPSILON)
    largest = np.abs(x).max(-1, keepdims=True)
    rounding: Array = np.finfo(np.float32).eps * largest / spread * np.abs(gamma)
    return rounding


@settings(max_examples=40, deadline=None)
@example(rows=7, width=2, rms=False, biased=False, seed=0)  # a row of two numbers that are alike
@given(
    rows=st.integers(1, 60),
    width=st.integers(1, 700),
    rms=st.booleans(),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_against_the_reference(rows: int, width: int, rms: bool, biased: bool, seed: int) -> None:
    x, skip = (_random(2, rows, width, seed=seed + s) for s in (0, 1))
    gamma = _random(width, seed=seed + 2)
    beta = _random(width, seed=seed + 3) if biased else None
    how = {"epsilon": EPSILON, "rms": int(rms)}
    (plain,) = run(DOMAIN, "Normalization", [x, gamma, beta], **how)
    _close(plain, normalize(x, gamma, beta, EPSILON, rms=rms), _rounding(x, gamma, rms))
    y, total = run(DOMAIN, "SkipNormalization", [x, skip, gamma, beta], outputs=2, **how)
    assert np.array_equal(total, x + skip)
    _close(y, normalize(total, gamma, beta, EPSILON, rms=rms), _rounding(total, gamma, rms))
    (alone,) = run(DOMAIN, "SkipNormalization", [x, skip, gamma, beta], **how)
    unnamed = run(DOMAIN, "SkipNormalization", [x, skip, gamma, beta], 2, left_out=[1], **how)
    assert np.array_equal(unnamed[0], y)
    assert np.array_equal(alone, y)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 20), width=st.integers(1, 200), rms=st.booleans(), seed=st.integers(0, 99)
)
def test_sums_before_and_behind_give_the_bits_of_ops_of_their_own(
    rows: int, width: int, rms: bool, seed: int
) -> None:
    x, skip = (_random(2, rows, width, seed=seed + s) for s in (0, 1))
    gamma, own = (_random(width, seed=seed + s) for s in (2, 3))
    beta = _random(width, seed=seed + 4) if seed % 2 else None
    how = {"epsilon": EPSILON, "rms": int(rms)}
    (plain,) = run(DOMAIN, "Normalization", [x, gamma, beta], **how)
    (behind,) = run(DOMAIN, "Normalization", [x, gamma, beta, skip], **how)
    assert np.array_equal(behind, plain + skip)
    (normed,) = run(DOMAIN, "Normalization", [x, own], **how)
    apart = run(DOMAIN, "SkipNormalization", [normed, skip, gamma, beta], outputs=2, **how)
    joined = run(DOMAIN, "SkipNormalization", [x, skip, gamma, beta, own], outputs=2, **how)
    (alone,) = run(DOMAIN, "SkipNormalization", [x, skip, gamma, beta, own], **how)
    assert all(np.array_equal(a, b) for a, b in zip(joined, apart, strict=True))
    assert np.array_equal(alone, apart[0])


def test_a_large_mean_costs_no_digits() -> None:
    x = _random(5, 384, seed=0) + np.float32(1000)
    gamma = np.ones(384, np.float32)
    (y,) = run(DOMAIN, "Normalization", [x, gamma], epsilon=1e-12, rms=0)
    # The numbers themselves have 3e-5 of rounding at 1000; the norm adds nothing to that.
    assert np.abs(y - normalize(x, gamma, None, 1e-12, rms=False)).max() < 2e-4


@pytest.mark.parametrize("width", [8, 12])
def test_refuses_weights_of_another_length(width: int) -> None:
    x = _random(1, 16, seed=0)
    with pytest.raises(Exception, match="do not fit the last axis"):
        run(DOMAIN, "Normalization", [x, np.ones(width, np.float32)], epsilon=0.0, rms=1)
    gamma, own = np.ones(16, np.float32), np.ones(width, np.float32)
    with pytest.raises(Exception, match="do not fit the last axis"):
        run(DOMAIN, "SkipNormalization", [x, x, gamma, None, own], epsilon=0.0, rms=1)


def test_refuses_sides_of_other_sizes() -> None:
    x, skip, gamma = _random(2, 16, seed=0), _random(1, 16, seed=1), np.ones(16, np.float32)
    with pytest.raises(Exception, match="differ in size"):
        run(DOMAIN, "SkipNormalization", [x, skip, gamma], epsilon=0.0, rms=1)
    with pytest.raises(Exception, match="differ in size"):
        run(DOMAIN, "Normalization", [x, gamma, None, skip], epsilon=0.0, rms=1)
