"""Positions of tokens, for an engine that takes them as an input."""

from __future__ import annotations

import numpy as np

__all__ = ["counted"]


def counted(mask: np.ndarray, width: int) -> np.ndarray:
    """Positions (rows, width) of the last ``width`` tokens: what the mask has before them."""
    places = np.maximum(mask.cumsum(axis=1) - 1, 0)
    return np.asarray(places[:, mask.shape[1] - width :], np.int64)
