"""Ranges of activations: what is counted does not depend on the order, and the scales hold it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.quant._ranges import BINS, FP8_MOST, INT8_MOST, InputRange, readable
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
    # Where the reach doubles on the way, a value may fall to the other side of an edge.
    assert first.int8_scale() == pytest.approx(second.int8_scale(), rel=0.05)


@given(SIZES)
@settings(max_examples=30)
def test_scales_hold_what_was_seen(sizes: list[float]) -> None:
    parts = [random(3, 8, seed=n, scale=size) for n, size in enumerate(sizes)]
    seen = _seen(parts)
    assert seen.most == max(float(np.abs(part).max()) for part in parts)
    assert seen.fp8_scale() * FP8_MOST >= seen.most * (1 - 1e-12)
    assert 0 < seen.int8_scale() * INT8_MOST <= seen.most * (1 + 1e-12)
    assert int(seen._counts.sum()) == sum(part.size for part in parts)


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_a_readable_scale_has_three_digits_and_is_no_smaller(scale: float) -> None:
    made = readable(scale)
    assert float(f"{made:.3g}") == made
    assert scale * (1 - 1e-5) <= made <= scale * 1.011


def test_machines_that_differ_in_the_last_bit_agree() -> None:
    assert readable(0.0127) == readable(np.nextafter(0.0127, 1)) == 0.0127


def test_a_lone_outlier_is_clipped() -> None:
    rows = random(4096, 16)
    rows[7, 3] = 200.0
    seen = _seen([rows])
    assert seen.fp8_scale() == 200 / FP8_MOST
    assert seen.int8_scale() * INT8_MOST < 150
    clipped = np.clip(np.round(rows / seen.int8_scale()), -127, 127) * seen.int8_scale()
    whole = np.round(rows / (200 / INT8_MOST)) * (200 / INT8_MOST)
    assert ((clipped - rows) ** 2).sum() < ((whole - rows) ** 2).sum()


def test_zeros_and_nothing_have_a_scale() -> None:
    assert _seen([]).int8_scale() == _seen([np.zeros((2, 4), np.float32)]).fp8_scale() == 1.0
    assert _seen([np.zeros((0, 4), np.float32)]).most == 0.0


def test_bins_join_in_pairs() -> None:
    seen = _seen([np.full((1, 2), 0.9, np.float32)])
    assert seen._counts[int(0.9 * BINS)] == 2
    seen.see(np.full((1, 2), 1.8, np.float32))
    assert seen._counts[int(0.9 * BINS)] == 2
    assert seen._counts[int(0.45 * BINS)] == 2
