"""Rounding and ranges: the one home of the arithmetic of quantization.

Symmetric, so ``w ~ q * scale`` without a zero point. ``q`` is int8 everywhere here; 4 bits use
-8 to 7. For 8 bits ``scale = max|w| / 127`` of the row, so the error is at most half a scale.

For 4 bits the sixteen levels are few, and where they lie matters. Each group tries a few scales,
named by the level that its largest value falls on (the others clip a little, or use one level more
on one side), and keeps the one with the least squared error. Given ``q``, the best scale is
``<w, q> / <q, q>`` and leaves the error ``<w, w> - <w, q>^2 / <q, q>``, so candidates are compared
without computing an error.

Rows that lie on sixteen levels already, of a model that was quantized or trained so, are kept as
they are: any of the levels may be the one that the largest value of a group has.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "LEVELS",
    "MORE_LEVELS",
    "importance_of",
    "quantize_int4",
    "quantize_int8",
    "quantize_int8_blocks",
]

LEVELS = (-8.0, -8.75, -7.0)
"""Levels that the value of largest magnitude of a group may fall on."""

MORE_LEVELS = (*LEVELS, -9.5, -10.5, -6.5, 7.0, 7.5)
"""For those who take more time: stronger clipping, and the seven levels of the other side."""

# Levels for rows that lie on sixteen levels already.
_WHOLE = (-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0)
# Values of a group that are looked at before all of it is, and how far bf16 may take one from its
# level: it and the largest are each off by up to 2^-8 of themselves.
_LOOKED_AT, _OFF = 8, 8 * 2.0**-7

# Elements that are worked on at a time: temporary arrays stay in the cache of a core, and one call
# of numpy lasts long enough for another thread to get on with its own.
_CHUNK = 1 << 17
_TINY = np.float32(1e-30)
_LEAST = 0.01


def quantize_int8(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One scale a row.

    Args:
        w: fp32 (rows, columns).

    Returns:
        int8 (rows, columns) and fp32 (rows,), with ``|w - q * scale| <= scale / 2``.
    """
    q = np.empty(w.shape, dtype=np.int8)
    scale = np.empty(len(w), dtype=np.float32)
    step = max(1, _CHUNK // max(1, w.shape[1]))
    for start in range(0, len(w), step):
        rows = slice(start, start + step)
        part = w[rows]
        widest = np.maximum(part.max(axis=1), -part.min(axis=1))
        scaled = part * _inverse(widest, 127)[:, None]
        q[rows] = np.rint(scaled, out=scaled)
        scale[rows] = widest / np.float32(127)
    return q, scale


def quantize_int8_blocks(w: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """One scale for each ``group`` columns of a row.

    Args:
        w: fp32 (rows, columns), columns a multiple of ``group``.

    Returns:
        int8 (rows, columns) and fp32 (rows, columns / group).
    """
    q, scale = quantize_int8(w.reshape(-1, group))
    return q.reshape(w.shape), scale.reshape(len(w), -1)


def quantize_int4(
    w: np.ndarray,
    group: int,
    levels: tuple[float, ...] = LEVELS,
    importance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One scale for each ``group`` columns of a row.

    Args:
        w: fp32 (rows, columns), columns a multiple of ``group``.
        levels: candidates, see the module; an earlier one is kept where a later one is no better.
        importance: what a squared error costs in each column, (columns,); left out, the same.

    Returns:
        int8 in -8..7 (rows, columns) and fp32 (rows, columns / group). A scale may be negative.
    """
    kept = _on_levels(w, group)
    if not kept.any():
        return _rounded(w, group, levels, importance)
    q = np.empty(w.shape, dtype=np.int8)
    scale = np.empty((len(w), w.shape[1] // group), dtype=np.float32)
    for rows, tried in ((kept, _WHOLE), (~kept, levels)):
        q[rows], scale[rows] = _rounded(w[rows], group, tried, importance)
    return q, scale


def _rounded(
    w: np.ndarray, group: int, levels: tuple[float, ...], importance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Each group by the best of ``levels``."""
    groups = w.reshape(-1, group)
    q = np.empty(groups.shape, dtype=np.int8)
    scale = np.empty(len(groups), dtype=np.float32)
    step = max(1, _CHUNK // group)
    costs = None if importance is None else importance.astype(np.float32).reshape(-1, group)
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        cost = None
        if costs is not None:
            which = np.arange(start, min(len(groups), start + step)) % len(costs)
            cost = np.ascontiguousarray(costs[which].T)
        q[part], scale[part] = _best(groups[part], levels, cost)
    return q.reshape(w.shape), scale.reshape(len(w), w.shape[1] // group)


def _on_levels(w: np.ndarray, group: int) -> np.ndarray:
    """Which rows of ``w`` (rows, columns) are whole multiples, up to 8, of a number for each group.
    A few values of the first group tell most that are not."""
    on = _multiples(w[:, :_LOOKED_AT], _extreme(w[:, :group]))
    groups = w[on].reshape(-1, group)
    extreme = _extreme(groups)
    each = _multiples(groups, extreme) | (extreme <= _TINY)
    on[on] = each.reshape(-1, w.shape[1] // group).all(axis=1)
    return on


def _extreme(w: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(w.max(axis=1), -w.min(axis=1)))


def _multiples(w: np.ndarray, extreme: np.ndarray) -> np.ndarray:
    """Which rows are whole multiples of an eighth, a seventh .. of ``extreme``, but zeros alone."""
    on = np.zeros(len(w), dtype=bool)
    for level in _WHOLE:
        scaled = w * _inverse(extreme, level)[:, None]
        on |= (np.abs(scaled - np.rint(scaled)) < _OFF).all(axis=1)
    return np.asarray(on & (extreme > _TINY))


def importance_of(squares: np.ndarray) -> np.ndarray:
    """What an error in a column of a weight costs, by the squares of what the column reads.

    Args:
        squares: (columns,), sums or means over a sample.

    Returns:
        fp32 (columns,), 1 in the mean; a column that the sample never used counts a little.
    """
    squares = squares.astype(np.float64)
    mean = float(squares.mean())
    if mean <= 0:
        return np.ones(len(squares), dtype=np.float32)
    return np.asarray(np.maximum(squares / mean, _LEAST), dtype=np.float32)


def _inverse(extreme: np.ndarray, level: float) -> np.ndarray:
    """Factor that takes ``extreme`` to ``level``; 0 where all values are 0."""
    usable = np.abs(extreme) > _TINY
    inverse = np.zeros_like(extreme)
    np.divide(np.float32(level), extreme, out=inverse, where=usable)
    return inverse


def _best(
    w: np.ndarray, levels: tuple[float, ...], cost: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Candidate with the least error for each group of ``w`` (groups, size); cost (size, groups).

    The candidates are compared first and the winner is rounded after: rounding again is cheaper
    than keeping the better of two matrices.
    """
    # Groups side by side: reductions then run along memory, several groups at once.
    wide = np.ascontiguousarray(w.T)
    high, low = wide.max(axis=0), wide.min(axis=0)
    extreme = np.where(high > -low, high, low)
    scaled, product = np.empty_like(wide), np.empty_like(wide)
    best_gain = np.full(len(w), -1, dtype=np.float32)
    best_scale, best_inverse = np.zeros_like(best_gain), np.zeros_like(best_gain)
    for level in levels:
        inverse = _inverse(extreme, level)
        _round(wide, inverse, out=scaled)
        dot = _sum(np.multiply(wide, scaled, out=product), cost)
        norm = _sum(np.multiply(scaled, scaled, out=product), cost)
        norm = np.maximum(norm, 1) if cost is None else np.where(norm > 0, norm, 1)
        gain = dot * dot / norm
        better = gain > best_gain
        np.copyto(best_gain, gain, where=better)
        np.copyto(best_scale, dot / norm, where=better)
        np.copyto(best_inverse, inverse, where=better)
    rounded = _round(w, best_inverse[:, None], out=product.reshape(w.shape))
    return rounded.astype(np.int8), best_scale


def _sum(product: np.ndarray, cost: np.ndarray | None) -> np.ndarray:
    if cost is not None:
        np.multiply(product, cost, out=product)
    return np.asarray(product.sum(axis=0))


def _round(w: np.ndarray, inverse: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The nearest of the sixteen values, as fp32."""
    np.multiply(w, inverse, out=out)
    np.rint(out, out=out)
    return np.clip(out, -8, 7, out=out)
