"""What a decoder goes on from before its first token: caches of no tokens, states of zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_passes.match import PAST

__all__ = ["empty_past", "is_past"]


def is_past(name: str) -> bool:
    """Whether an input of this name holds what came before."""
    return name.startswith(PAST)


def empty_past(shape: Sequence[object], batch: int) -> np.ndarray:
    """An fp32 array for such an input; of its dimensions after the batch, one with a name counts
    tokens."""
    sizes = [size if isinstance(size, int) else 0 for size in shape[1:]]
    return np.zeros((batch, *sizes), np.float32)
