"""Logits as chances."""

from __future__ import annotations

import numpy as np

__all__ = ["softmax"]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Chances that sum to one."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
