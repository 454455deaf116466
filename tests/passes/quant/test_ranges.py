"""Ranges of activations: what is counted does not depend on the order, and the scales hold it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.quant.ranges import FP8_MOST, INT8_MOST, InputRange, readable
from tests.passes.support import random

SIZES = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=5)


def _seen(parts: list[np.ndarray]) -> InputRange:
    seen = InputRange()
    for part in parts:
        seen.see(part)
    return seen


@given(SIZES, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_the_sample_changes_nothing(sizes: list[float], order: object) -> None:
    parts = [random(3, 8, seed=n, scale=size) for n, size in enumerate(sizes)]
    turned = list(parts)
    order.shuffle(turned)  # type: ignore[attr-defined]
    first, second = _seen(parts), _seen(turned)
    assert first.most == second.most
    assert first.channels.tolist() == second.channels.tolist()
    assert first.int8_scale() == second.int8_scale()
    assert first.energy == pytest.approx(second.energy, rel=1e-12)


@given(SIZES)
@settings(max_examples=30)
def test_scales_hold_what_was_seen(sizes: list[float]) -> None:
    parts = [random(3, 8, seed=n, scale=size) for n, size in enumerate(sizes)]
    seen = _seen(parts)
    assert seen.most == max(float(np.abs(part).max()) for part in parts)
    assert seen.fp8_scale() * FP8_MOST >= seen.most * (1 - 1e-12)
    assert 0 < seen.int8_scale() * INT8_MOST <= seen.most * (1 + 1e-12)
    assert seen.rows == sum(len(part) for part in parts)


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_a_readable_scale_has_three_digits_and_is_no_smaller(scale: float) -> None:
    made = readable(scale)
    assert float(f"{made:.3g}") == made
    assert scale * (1 - 1e-5) <= made <= scale * 1.011


def test_machines_that_differ_in_the_last_bit_agree() -> None:
    assert readable(0.0127) == readable(np.nextafter(0.0127, 1)) == 0.0127


def test_nothing_is_clipped() -> None:
    rows = random(4096, 16)
    rows[7, 3] = 200.0
    seen = _seen([rows])
    assert (seen.fp8_scale(), seen.int8_scale()) == (200 / FP8_MOST, 200 / INT8_MOST)
    assert seen.channels[3] == 200.0


@pytest.mark.parametrize("outlier", [1.0, 30.0, 1000.0])
def test_the_expected_loss_is_what_rounding_loses(outlier: float) -> None:
    rows = random(4096, 16)
    rows[:, 3] *= outlier
    seen = _seen([rows])
    rounded = np.round(rows / seen.int8_scale()) * seen.int8_scale()
    lost = float(np.sqrt(((rounded - rows) ** 2).sum() / (rows**2).sum()))
    assert seen.int8_loss() == pytest.approx(lost, rel=0.1)


def test_zeros_and_nothing_have_a_scale() -> None:
    assert _seen([]).int8_scale() == _seen([np.zeros((2, 4), np.float32)]).fp8_scale() == 1.0
    assert _seen([np.zeros((0, 4), np.float32)]).most == 0.0
    assert _seen([]).int8_loss() == _seen([np.zeros((2, 4), np.float32)]).int8_loss() == 0.0
