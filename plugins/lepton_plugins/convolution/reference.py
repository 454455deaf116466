"""The truth in numpy, in fp64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["convolve"]

Array = NDArray[Any]


def convolve(
    x: Array, taps: Array, past: Array, bias: Array | None, *, silu: bool
) -> tuple[Array, Array]:
    """(batch, tokens, channels), and what the next call has to know of the past."""
    before = past.astype(np.float64).transpose(0, 2, 1)
    whole = np.concatenate([before, x.astype(np.float64)], axis=1)
    tokens, count = x.shape[1], len(taps)
    y = np.zeros(x.shape) + (0 if bias is None else bias)
    for tap in range(count):
        y += taps[tap].astype(np.float64) * whole[:, tap : tap + tokens]
    if silu:
        y = y / (1 + np.exp(-y))
    return y, whole[:, tokens:].transpose(0, 2, 1)
