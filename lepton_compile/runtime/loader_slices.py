"""Rows of an encoder, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["run_slices"]


def run_slices(run: Any, size: int, names: list[str], given: Mapping[str, np.ndarray]) -> Any:
    """``run`` on rows of some ``size`` tokens at a time: what layers write then stays in caches."""
    few = max(size // max(given["input_ids"].shape[1], 1), 1)
    starts = range(0, len(given["input_ids"]) or 1, few)
    found = [run(names, {n: a[i : i + few] for n, a in given.items()}) for i in starts]
    return found[0] if len(found) == 1 else [np.concatenate(p) for p in zip(*found, strict=True)]
