"""Patches by windows, of which most layers of a vision tower see one alone (Qwen2.5-VL)."""

from __future__ import annotations

import numpy as np

__all__ = ["by_window"]


def by_window(array: np.ndarray, side: int, fill: int) -> np.ndarray:
    """(rows, columns, ..) as (windows, tokens, ..), each of ``side`` x ``side``."""
    more = [(0, -size % side) for size in array.shape[:2]] + [(0, 0)] * (array.ndim - 2)
    full = np.pad(array, more, constant_values=fill)
    high, wide = (size // side for size in full.shape[:2])
    apart = full.reshape(high, side, wide, side, *array.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(apart).reshape(high * wide, side**2, *array.shape[2:])
