"""Distances between two sets of numbers that arrive piece by piece.

Logits over a vocabulary of 262,144 entries are too large to keep for every position of a text, so
each metric is an accumulator: feed it one segment after the other, ask for the result at the end.
The result does not depend on how the rows were cut into pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Agreement", "Comparison", "Difference", "Perplexity", "plain"]

Array = npt.NDArray[np.generic]
Float64 = npt.NDArray[np.float64]
Float = npt.NDArray[np.float32] | Float64

BLOCK_ELEMENTS = 1 << 19
"""Elements converted to float64 at a time: 4 MiB for each temporary."""

TIE = 1e-5
"""Two logits closer than this part of their row's range are a tie: fp32 sums taken in another order
differ by as much."""


@dataclass(frozen=True)
class Difference:
    """How far a candidate is from its reference.

    Attributes:
        elements: numbers compared.
        rows: vectors compared; a row is the last axis.
        max_abs: largest absolute error.
        mean_abs: mean absolute error.
        low: smallest value of the reference.
        high: largest value of the reference.
        cosine: mean over the rows of the cosine similarity.
        cosine_min: the worst row.
        not_finite: elements that are infinite or NaN on either side without being equal.
    """

    elements: int
    rows: int
    max_abs: float
    mean_abs: float
    low: float
    high: float
    cosine: float
    cosine_min: float
    not_finite: int

    @property
    def relative(self) -> float:
        """Largest absolute error as a part of the range of the reference."""
        if self.max_abs == 0.0:
            return 0.0
        span = self.high - self.low
        return self.max_abs / span if span > 0.0 else math.inf

    def as_dict(self) -> dict[str, float | int | None]:
        """The numbers by name, ``relative`` among them; what JSON cannot write is None."""
        numbers = {**asdict(self), "relative": self.relative}
        return {name: plain(value) for name, value in numbers.items()}


class Comparison:
    """Accumulates a ``Difference``."""

    def __init__(self) -> None:
        self._elements = 0
        self._rows = 0
        self._max = 0.0
        self._sum = 0.0
        self._low = math.inf
        self._high = -math.inf
        self._cosines = 0.0
        self._cosine_min = 1.0
        self._not_finite = 0

    def update(self, reference: Array, candidate: Array) -> None:
        """Adds a piece of shape ``(..., width)``; both sides agree in shape, in any real dtype.

        Raises:
            ValueError: the shapes differ.
        """
        for truth, found in _blocks(reference, candidate):
            self._add(truth, found)

    def _add(self, truth: Float64, found: Float64) -> None:
        with np.errstate(invalid="ignore"):
            error = truth - found
        np.abs(error, out=error)
        largest = float(error.max())
        if not math.isfinite(largest):  # else all numbers are finite, and need no look of their own
            usable = np.isfinite(truth) & np.isfinite(found)
            self._not_finite += int(np.count_nonzero(~usable & (truth != found)))
            truth, found = np.where(usable, truth, 0.0), np.where(usable, found, 0.0)
            error = np.abs(truth - found)
            largest = float(error.max())
        self._elements += truth.size
        self._rows += len(truth)
        self._max = max(self._max, largest)
        self._sum += float(error.sum())
        self._low = min(self._low, float(truth.min()))
        self._high = max(self._high, float(truth.max()))
        cosines = _cosines(truth, found)
        self._cosines += float(cosines.sum())
        self._cosine_min = min(self._cosine_min, float(cosines.min()))

    def result(self) -> Difference:
        """The difference over everything seen so far.

        Raises:
            ValueError: nothing was compared.
        """
        if not self._elements:
            raise ValueError("nothing was compared")
        return Difference(
            elements=self._elements,
            rows=self._rows,
            max_abs=self._max,
            mean_abs=self._sum / self._elements,
            low=self._low,
            high=self._high,
            cosine=self._cosines / self._rows,
            cosine_min=self._cosine_min,
            not_finite=self._not_finite,
        )


class Agreement:
    """Counts rows in which both sides rank the same entry first.

    Attributes:
        total: rows seen.
        agreed: rows whose choice is a best entry of the reference, ties included.
        ties: how many of ``agreed`` chose another entry that is a tie in the reference.
    """

    def __init__(self) -> None:
        self.total = 0
        self.agreed = 0
        self.ties = 0

    def update(self, reference: Array, candidate: Array) -> None:
        """Adds a piece of shape ``(..., classes)``.

        Raises:
            ValueError: the shapes differ.
        """
        _demand_same_shape(reference, candidate)
        for truth, found in zip(_rows(reference), _rows(candidate), strict=True):
            self._add(truth, found.argmax(axis=-1))

    def update_choices(self, reference: Array, chosen: npt.NDArray[np.integer]) -> None:
        """Adds rows ``(rows, classes)`` of the reference, and entries chosen already: ``(rows,)``.

        Raises:
            ValueError: the number of rows differs.
        """
        if len(reference) != len(chosen):
            raise ValueError(f"{len(reference)} rows of logits for {len(chosen)} choices")
        start = 0
        for truth in _rows(reference):
            self._add(truth, chosen[start : start + len(truth)])
            start += len(truth)

    def _add(self, truth: Float, chosen: npt.NDArray[np.integer]) -> None:
        rows = np.arange(len(truth))
        best = truth.argmax(axis=-1)
        same = best == chosen
        top, other, low = (
            numbers.astype(np.float64)
            for numbers in (truth[rows, best], truth[rows, chosen], truth.min(axis=-1))
        )
        tied = ~same & (top - other <= TIE * (top - low))
        self.total += len(rows)
        self.agreed += int(np.count_nonzero(same | tied))
        self.ties += int(np.count_nonzero(tied))

    @property
    def ratio(self) -> float:
        """Agreed rows as a part of all rows; 1.0 when there were none."""
        return self.agreed / self.total if self.total else 1.0


class Perplexity:
    """Accumulates how surprised a language model is by a text."""

    def __init__(self) -> None:
        self.tokens = 0
        self._surprise = 0.0

    def update(self, logits: Array, targets: npt.NDArray[np.integer]) -> None:
        """Adds predictions.

        Args:
            logits: ``(positions, vocabulary)``.
            targets: ``(positions,)``, the token that follows each position.

        Raises:
            ValueError: the number of positions differs.
        """
        if len(logits) != len(targets):
            raise ValueError(f"{len(logits)} rows of logits for {len(targets)} targets")
        start = 0
        for block in _rows(logits):
            top = block.max(axis=-1, keepdims=True).astype(np.float64)
            below = block - top
            totals = top[:, 0] + np.log(np.exp(below, out=below).sum(axis=-1))
            stop = start + len(block)
            self._surprise += float(
                (totals - block[np.arange(len(block)), targets[start:stop]]).sum()
            )
            start = stop
        self.tokens += len(targets)

    @property
    def value(self) -> float:
        """The perplexity of everything seen so far; NaN before the first token."""
        if not self.tokens:
            return math.nan
        mean = self._surprise / self.tokens
        return math.exp(mean) if mean < 700.0 else math.inf


def plain(value: float) -> float | None:
    """The number, or None where JSON has no word for it (infinity, NaN)."""
    return value if math.isfinite(value) else None


def _blocks(reference: Array, candidate: Array) -> Iterator[tuple[Float64, Float64]]:
    """Both arrays as matrices of rows, a block of rows at a time, in float64."""
    _demand_same_shape(reference, candidate)
    for left, right in zip(_rows(reference), _rows(candidate), strict=True):
        yield left.astype(np.float64), right.astype(np.float64)


def _demand_same_shape(reference: Array, candidate: Array) -> None:
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")


def _rows(array: Array) -> Iterator[Float]:
    """A matrix of rows, a block of rows at a time. Numbers of fp32 stay what they are: to compare
    them with each other needs no more. All others are in float64."""
    width = array.shape[-1]
    matrix, step = array.reshape(-1, width), max(1, BLOCK_ELEMENTS // width)
    kind: type = np.float32 if array.dtype == np.float32 else np.float64
    for start in range(0, len(matrix), step):
        yield matrix[start : start + step].astype(kind, copy=False)


def _cosines(truth: Float64, found: Float64) -> Float64:
    """Cosine of each row; two zero rows are alike, a zero row and another one are not."""
    scale = _lengths(truth) * _lengths(found)
    dots = np.einsum("ij,ij->i", truth, found)
    alike = np.zeros_like(scale)
    if not (scale > 0.0).all():
        alike = (truth == found).all(axis=-1).astype(np.float64)
    ratio: Float64 = np.clip(np.divide(dots, scale, out=alike, where=scale > 0.0), -1.0, 1.0)
    return ratio


def _lengths(rows: Float64) -> Float64:
    """What numpy's norm gives, which copies all of them first."""
    lengths: Float64 = np.sqrt(np.square(rows).sum(axis=-1))
    return lengths
