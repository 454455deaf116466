"""Metrics: the numbers themselves, and that cutting the data into pieces does not change them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.numerics import metrics
from lepton_compile.numerics.metrics import Agreement, Comparison, Perplexity


def compared(reference: np.ndarray, candidate: np.ndarray) -> metrics.Difference:
    comparison = Comparison()
    comparison.update(reference, candidate)
    return comparison.result()


def test_difference_by_hand() -> None:
    found = compared(np.array([[0.0, 3.0], [4.0, 0.0]]), np.array([[0.0, 3.0], [4.0, 2.0]]))
    assert (found.elements, found.rows, found.max_abs, found.mean_abs) == (4, 2, 2.0, 0.5)
    assert (found.low, found.high, found.relative) == (0.0, 4.0, 0.5)
    assert found.cosine_min == pytest.approx(4 / math.sqrt(20))
    assert found.cosine == pytest.approx((1 + 4 / math.sqrt(20)) / 2)
    assert (found.as_dict()["relative"], found.as_dict()["max_abs"]) == (0.5, 2.0)


def test_a_constant_reference_has_no_range() -> None:
    ones = np.ones((1, 3), np.float32)
    assert compared(ones, ones).relative == 0.0
    assert compared(ones, ones + 1).relative == math.inf
    assert compared(ones, ones + 1).as_dict()["relative"] is None


def test_zero_rows_are_alike_and_unlike_others() -> None:
    zeros, ones = np.zeros((1, 3)), np.ones((1, 3))
    assert compared(zeros, zeros).cosine == 1.0
    assert compared(zeros, ones).cosine == 0.0
    assert compared(zeros, np.array([[0.0, 1.0, 0.0]])).cosine == 0.0
    assert compared(np.append(zeros, ones, 0), np.append(zeros, ones, 0)).cosine_min == 1.0


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_relative_error_has_no_unit(unit: float) -> None:
    reference = np.array([[0.0, 4.0]])
    assert compared(reference * unit, (reference + 1) * unit).relative == pytest.approx(0.25)


def test_large_integers_are_not_rounded_before_they_are_compared() -> None:
    reference = np.array([[1 << 24, 3]])
    assert compared(reference, reference + 1).mean_abs == 1.0


def test_infinite_and_nan_are_counted_apart() -> None:
    reference = np.array([[1.0, -np.inf, np.nan, 2.0]])
    candidate = np.array([[1.0, -np.inf, np.nan, np.inf]])
    with np.errstate(invalid="raise"):  # nor does a user hear of infinity less infinity
        found = compared(reference, candidate)
    assert found.not_finite == 2  # NaN never equals NaN; -inf on both sides is agreement
    assert found.max_abs == 0.0


def test_what_is_infinite_hides_no_error_beside_it() -> None:
    """Scores of what a mask leaves out are -inf on both sides."""
    reference = np.array([[1.0, -np.inf, 3.0, 2.0]])
    found = compared(reference, reference + np.array([0.0, 0.0, 0.5, 0.0]))
    assert (found.not_finite, found.max_abs, found.mean_abs) == (0, 0.5, 0.125)
    assert (found.low, found.high) == (0.0, 3.0)
    assert 0.99 < found.cosine_min < 1


def test_nothing_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Comparison().result()
    assert Agreement().ratio == 1.0
    assert math.isnan(Perplexity().value)


@pytest.mark.parametrize("metric", [Comparison, Agreement])
def test_shapes_must_match(metric: type[Comparison | Agreement]) -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        metric().update(np.zeros((2, 3)), np.zeros((3, 2)))


def test_agreement_counts_ties_apart() -> None:
    agreement = Agreement()
    reference = np.array([[1.0, 0.0], [1.0, 1.0 - 1e-7], [0.0, 1.0]])
    agreement.update(np.append(reference, [[0], [-1], [0]], 1), np.array([[2.0, 1, 0]] * 3))
    assert (agreement.total, agreement.agreed, agreement.ties) == (3, 2, 0)
    assert agreement.ratio == pytest.approx(2 / 3)
    swapped = Agreement()
    swapped.update(np.array([[1.0, 1.0 - 1e-7, -1.0]]), np.array([[0.0, 1.0, 0.0]]))
    assert (swapped.agreed, swapped.ties) == (1, 1)


@pytest.mark.parametrize(
    ("row", "ties"), [([1.0, 0.99, -1.0], 0), ([1e-6, 0.0, -1e-6], 0), ([3.0, 3.0, 3.0], 1)]
)
def test_a_tie_is_told_by_the_range_of_its_row(row: list[float], ties: int) -> None:
    agreement = Agreement()
    agreement.update_choices(np.array([row, [9.0, 0.0, -9.0]]), np.array([1, 0]))
    assert (agreement.agreed, agreement.ties) == (1 + ties, ties)


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    perplexity = Perplexity()
    perplexity.update(np.full((5, 7), 3.25, np.float32), np.arange(5))
    assert perplexity.value == pytest.approx(7.0)


def test_perplexity_survives_large_logits() -> None:
    perplexity = Perplexity()
    perplexity.update(np.array([[1500.0, 0.0], [9.0, -1500.0]], np.float32), np.array([0, 0]))
    assert perplexity.value == pytest.approx(1.0)
    perplexity.update(np.array([[1500.0, 0.0]] * 2, np.float32), np.array([1, 1]))
    assert perplexity.value == math.inf  # e to the 750 is more than a number holds


@pytest.mark.parametrize("wrong", [Perplexity().update, Agreement().update_choices])
def test_rows_must_match(wrong: object) -> None:
    with pytest.raises(ValueError, match="2 rows"):
        wrong(np.zeros((2, 3)), np.zeros(3, np.int64))  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 12),
    width=st.integers(2, 9),
    cuts=st.lists(st.integers(0, 12), max_size=4),
    block=st.integers(1, 40),
)
def test_streaming_equals_whole(
    seed: int, rows: int, width: int, cuts: list[int], block: int
) -> None:
    random = np.random.default_rng(seed)
    reference = random.normal(size=(rows, width)).astype(np.float32)
    candidate = reference + random.normal(scale=0.3, size=reference.shape).astype(np.float32)
    targets = random.integers(0, width, rows)
    whole = _all_metrics([(reference, candidate, targets)])
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    spans = [slice(a, b) for a, b in pairwise(edges)]
    old, metrics.BLOCK_ELEMENTS = metrics.BLOCK_ELEMENTS, block
    try:
        pieces = _all_metrics([(reference[s], candidate[s], targets[s]) for s in spans])
    finally:
        metrics.BLOCK_ELEMENTS = old
    assert pieces == pytest.approx(whole)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("odd", [0.0, np.nan, np.inf])
def test_numbers_as_they_come_say_the_same_as_in_float64(dtype: type, odd: float) -> None:
    random = np.random.default_rng(3)
    reference = random.normal(size=(6, 40)).astype(dtype)
    candidate = reference + random.normal(scale=0.3, size=reference.shape).astype(dtype)
    reference[2, 5] = candidate[2, 5] = candidate[4, 7] = odd
    reference[5] = 0
    reference[1, :2] = reference[1].max() + 1  # a tie
    targets = random.integers(0, 40, 6)
    with np.errstate(invalid="ignore"):  # of perplexity: infinity less infinity
        found = _all_metrics([(reference, candidate, targets)])
        exact = [array.astype(np.float64) for array in (reference, candidate)]
        wanted = _all_metrics([(exact[0], exact[1], targets)])
    np.testing.assert_array_equal(found, wanted)
    assert 0 < found[-3] < found[-2], "some choices agree and some do not"


def _all_metrics(pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[float]:
    comparison, agreement, perplexity = Comparison(), Agreement(), Perplexity()
    chosen = Agreement()
    for reference, candidate, targets in pieces:
        comparison.update(reference, candidate)
        agreement.update(reference, candidate)
        chosen.update_choices(reference, candidate.argmax(-1))
        perplexity.update(candidate, targets)
    assert vars(chosen) == vars(agreement)
    numbers = [float(value or 0) for value in comparison.result().as_dict().values()]
    return [*numbers, agreement.agreed, agreement.total, perplexity.value]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 9))
def test_a_copy_is_equal_in_every_metric(seed: int, width: int) -> None:
    reference = np.random.default_rng(seed).normal(size=(4, width))
    found = compared(reference, reference.copy())
    assert (found.max_abs, found.relative, found.not_finite) == (0.0, 0.0, 0)
    assert found.cosine_min == pytest.approx(1.0)
    turned = compared(reference, -reference)
    assert -1.0 <= turned.cosine_min <= found.cosine <= 1.0
