"""Rounding and ranges: bounds that hold for any weight."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_passes.quant.scales import (
    LEVELS,
    _rounded,
    quantize_int4,
    quantize_int8,
    quantize_int8_blocks,
)

FLOATS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(64)), elements=FLOATS)


def _dequantized(q: np.ndarray, scale: np.ndarray, group: int) -> np.ndarray:
    return (q.reshape(len(q), -1, group) * scale.reshape(len(q), -1)[..., None]).reshape(q.shape)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_int8_is_within_half_a_scale(w: np.ndarray) -> None:
    q, scale = quantize_int8(w)
    error = np.abs(w - _dequantized(q, scale, 64))
    assert (error <= scale[:, None] * 0.5001 + 1e-30).all()
    assert q.min() >= -127


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.sampled_from([16, 32, 64]))
def test_int8_blocks_are_within_half_a_scale(w: np.ndarray, group: int) -> None:
    q, scale = quantize_int8_blocks(w, group)
    assert scale.shape == (len(w), 64 // group)
    error = np.abs(w - _dequantized(q, scale, group)).reshape(len(w), -1, group)
    assert (error <= scale[..., None] * 0.5001 + 1e-30).all()


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.sampled_from([16, 32, 64]))
def test_int4_is_no_worse_than_plain_rounding(w: np.ndarray, group: int) -> None:
    q, scale = quantize_int4(w, group)
    assert q.min() >= -8
    assert q.max() <= 7
    widest = np.abs(w.reshape(len(w), -1, group)).max(axis=2)
    plain_scale = (widest / 7).astype(np.float32)
    divisor = np.where(plain_scale > 0, plain_scale, 1)[..., None]
    plain_q = np.rint(w.reshape(len(w), -1, group) / divisor).reshape(w.shape)
    found = np.square(w - _dequantized(q, scale, group)).sum(dtype=np.float64)
    plain = np.square(w - _dequantized(plain_q, plain_scale, group)).sum(dtype=np.float64)
    assert found <= plain * 1.001 + 1e-6 * np.square(w).sum(dtype=np.float64)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS)
def test_int4_scale_is_the_best_for_its_integers(w: np.ndarray) -> None:
    q, scale = quantize_int4(w, 32)
    groups = q.reshape(len(w), -1, 32).astype(np.float64)
    left = (w - _dequantized(q, scale, 32)).reshape(groups.shape)
    slope = np.abs((left * groups).sum(axis=2))
    assert (slope <= 1e-4 * np.abs(w.reshape(groups.shape) * groups).sum(axis=2) + 1e-20).all()


def test_search_helps_on_normal_weights() -> None:
    w = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)

    def error(levels: tuple[float, ...]) -> float:
        q, scale = quantize_int4(w, 32, levels)
        return float(np.square(w - _dequantized(q, scale, 32)).mean())

    assert error(LEVELS) < error((-8.0,)) < error((-7.0,))


@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_rows_do_not_depend_on_how_they_are_cut(rows: int) -> None:
    w = np.random.default_rng(1).standard_normal((rows, 64)).astype(np.float32)
    for quantize in (quantize_int8, lambda part: quantize_int4(part, 32)):
        whole = quantize(w)
        assert [each.dtype for each in whole] == [np.int8, np.float32]
        parts = [quantize(part) for part in np.array_split(w, 3) if len(part)]
        for index in (0, 1):
            np.testing.assert_array_equal(whole[index], np.concatenate([p[index] for p in parts]))


def test_zeros_stay_zeros() -> None:
    w = np.zeros((2, 32), np.float32)
    with np.errstate(all="raise"):  # nor does a user hear of nothing by nothing
        minded = quantize_int4(w, 32, importance=np.ones(32))
        found = (quantize_int8(w), quantize_int4(w, 32), minded)
    for q, scale in found:
        assert not q.any()
        assert np.isfinite(scale).all()


def test_a_value_alone_is_kept_however_little_its_column_counts() -> None:
    w, importance = np.zeros((1, 32), np.float32), np.ones(32)
    w[0, 3], importance[3] = 5, 0.01
    q, scale = quantize_int4(w, 32, importance=importance)
    np.testing.assert_allclose(_dequantized(q, scale, 32), w, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 64]), st.sampled_from(["fp32", "bf16"]))
@example(142, 16, "bf16")  # where bf16 takes a value and the largest apart as far as it can
def test_int4_keeps_what_lies_on_levels_already(seed: int, group: int, stored: str) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-8, 8, (6, 4, group))
    codes[:, :, : group // 2] //= rng.integers(1, 4)  # groups whose largest value is on no end
    codes = np.clip(codes, *((0, 5), (-3, 3), (-8, 7), (-5, 0))[seed % 4])
    scales = rng.uniform(0.001, 2, (6, 4, 1)).astype(np.float32)
    w = (codes * scales).reshape(6, -1).astype(np.float32)
    if stored == "bf16":
        w = w.astype(ml_dtypes.bfloat16).astype(np.float32)
    q, scale = quantize_int4(w, group)
    found = (q.reshape(6, 4, group) * scale[..., None]).reshape(w.shape)
    near = 1e-6 if stored == "fp32" else 2.0**-7  # of the scale and of the value
    np.testing.assert_allclose(found, w, rtol=near, atol=near * 1e-3)


def test_rows_on_levels_do_not_change_the_others() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 64)).astype(np.float32)
    w[0, :32] = rng.integers(-5, 6, 32) * np.float32(0.3)  # but for its second group
    alone = quantize_int4(w[[0, 1, 3]], 32)
    w[2] = rng.integers(-5, 6, 64) * np.float32(0.3)
    w[2, :2] = 5 * np.float32(0.3)
    q, scale = quantize_int4(w, 32)
    assert (q.dtype, scale.dtype) == (np.int8, np.float32)
    np.testing.assert_array_equal(q[[0, 1, 3]], alone[0])
    np.testing.assert_array_equal(scale[[0, 1, 3]], alone[1])
    np.testing.assert_allclose(q[2] * scale[2].repeat(32), w[2], rtol=1e-6)


@pytest.mark.parametrize("on", [8, 32])
def test_a_few_values_on_levels_are_no_row_on_levels(on: int) -> None:
    """As of formats of 32 levels, or whose levels have no zero: some groups are on sixteen."""
    rng = np.random.default_rng(0)
    w = (rng.integers(-15, 16, (4, 64)) * np.float32(0.1)).astype(np.float32)
    w[:, :on] = rng.integers(-7, 8, (4, on)) * np.float32(0.2)
    w[:, on - 1] = np.float32(-1.6)
    found, plain = quantize_int4(w, 32), _rounded(w, 32, LEVELS, None)
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_array_equal(found[1], plain[1])
