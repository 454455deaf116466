"""The truth in numpy, in fp64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["normalize"]

Array = NDArray[Any]


def normalize(x: Array, gamma: Array, beta: Array | None, epsilon: float, *, rms: bool) -> Array:
    """``x`` (..., width) with rows of mean 0 (unless ``rms``) and variance 1, scaled and moved."""
    wide = x.astype(np.float64)
    centred = wide if rms else wide - wide.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    scaled = centred / deviation * gamma
    return np.asarray(scaled if beta is None else scaled + beta)
