"""The rows that a rotary module gives for positions, told from its numbers.

A row depends on its own position alone, or, as in LongRoPE, on whether some position of the call
is beyond a first few thousand as well: then there are two tables. Ding et al., LongRoPE, 2024,
https://arxiv.org/abs/2402.13753.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["AXES", "Tables", "columns_by_axis", "tabulated"]

AXES = 3
"""Of a position among pictures: time, row and column."""

Rows = tuple[np.ndarray, np.ndarray]  # cos and sin, fp32 (positions, rotary width / 2)


@dataclass(frozen=True)
class Tables:
    """Rows by position; ``far`` are those of calls with a position from ``limit`` on.

    ``joint``: the module gives cos + i sin in one complex tensor.
    """

    near: Rows
    far: Rows | None
    limit: int
    joint: bool


def tabulated(run: Callable[[Tensor], Any], positions: int, doubled: bool = False) -> Tables | None:
    """The tables of a module that gives ``run(rows)`` for ``rows`` of positions.

    ``doubled``: cos and sin have each entry twice in a row, else the whole row twice.

    None where rows depend on more than tables say, as those of dynamic scaling do.
    """

    def rows_of(places: Sequence[int] | range) -> Rows | None:
        return _halves(run(torch.tensor(list(places))), doubled)

    def told_by(table: Rows, *samples: Sequence[int]) -> bool:
        return all(_equal(rows_of(places), table, places) for places in samples)

    joint = isinstance(run(torch.tensor([0])), Tensor)
    last = positions - 1
    every = rows_of(range(positions))
    if every is None:
        return None
    if told_by(every, [0, 1], [min(5, last), 0, positions // 2]):
        return Tables(every, None, positions, joint)
    low, high = 2, positions  # rows 0 and 1 are as alone in calls of `low` positions, and not here
    while high - low > 1:
        middle = (low + high) // 2
        start = rows_of(range(middle))
        alone = start is not None and told_by(start, [0, 1])
        low, high = (middle, high) if alone else (low, middle)
    near = rows_of(range(low))
    if near is None or not told_by(near, [0, 1], [low - 1, 0, low // 2]):
        return None
    if not told_by(every, [low, 0, 1], [last, low // 2], [(low + last) // 2, 1]):
        return None
    return Tables(_longer(near, positions), every, low, joint)


def columns_by_axis(
    run: Callable[[Tensor], Any], table: Rows, doubled: bool
) -> tuple[int, ...] | None:
    """Which axis each column of rows goes by, of a module that gives ``run(positions)`` for
    positions (axes, 1, 1): the first, such as time, or that of rows or of columns of pictures.

    None where a row is not made of columns of ``table``.
    """

    def row_of(*places: int) -> Rows | None:
        return _halves(run(torch.tensor(places).reshape(AXES, 1, 1)), doubled)

    last = len(table[0]) - 1
    start = row_of(0, 0, 0)
    moved = [row_of(*(last * (axis == each) for each in range(AXES))) for axis in range(AXES)]
    if start is None or any(row is None for row in moved):
        return None
    apart = np.stack(
        [
            np.logical_or(*(a != b for a, b in zip(start, row, strict=True)))[0]
            for row in moved
            if row
        ]
    )
    axes = apart.argmax(0)
    if (apart.sum(0) > 1).any():  # of none are columns that never turn
        return None
    for places in ((last, 0, last // 2), (last // 3, last, 1), (2, last // 2, last)):
        given = row_of(*(min(place, last) for place in places))
        rows = np.array([min(place, last) for place in places])[axes]
        wanted = [each[rows, np.arange(len(axes))] for each in table]
        if given is None or not all(map(np.array_equal, (each[0] for each in given), wanted)):
            return None
    return tuple(map(int, axes))


def _halves(given: Any, doubled: bool) -> Rows | None:
    """cos and sin, half as wide as what they turn, from a pair that repeats them or a complex
    tensor."""
    if isinstance(given, Tensor):
        return (_array(given.real), _array(given.imag)) if given.is_complex() else None
    cos, sin = ((e[..., ::2], e[..., 1::2]) if doubled else e.chunk(2, -1) for e in given)
    repeated = torch.equal(*cos) and torch.equal(*sin)
    return (_array(cos[0]), _array(sin[0])) if repeated else None


def _array(rows: Tensor) -> np.ndarray:
    return rows[0].float().numpy().copy()


def _equal(rows: Rows | None, table: Rows, places: Sequence[int]) -> bool:
    if rows is None:
        return False
    return all(np.array_equal(r, t[list(places)]) for r, t in zip(rows, table, strict=True))


def _longer(table: Rows, positions: int) -> Rows:
    """With rows, for the sake of those that are read and dropped, up to the last position."""
    cos, sin = (np.pad(each, ((0, positions - len(each)), (0, 0))) for each in table)
    return cos, sin
