"""Timing that survives a noisy machine: rivals run in turn, and percentiles are kept, not means."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

__all__ = ["Timing", "alternate"]

MIN_ROUNDS = 3
MAX_ROUNDS = 200
BUDGET = 4.0
"""Seconds for the rounds of all rivals together."""


@dataclass(frozen=True)
class Timing:
    """Percentiles of repeated runs, in milliseconds."""

    runs: int
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """The percentiles of a list of durations in seconds."""
        p50, p90, p99 = (float(v) * 1e3 for v in np.percentile(seconds, (50, 90, 99)))
        return cls(len(seconds), p50, p90, p99)

    def as_dict(self) -> dict[str, float]:
        """The percentiles as JSON-ready data."""
        return asdict(self)


def alternate(
    rivals: Mapping[str, Callable[[], object]], *, rounds: int | None = None
) -> dict[str, list[float]]:
    """Runs every rival once per round, so that a slow minute of the machine hits all of them.

    Args:
        rivals: name -> call to time. Each is called once beforehand, untimed.
        rounds: how many; left out, 3 to 200, by ``BUDGET``.

    Returns:
        Name -> seconds of each round.
    """
    begin = time.perf_counter()
    for call in rivals.values():
        call()
    once = max(time.perf_counter() - begin, 1e-6)
    count = rounds or int(min(MAX_ROUNDS, max(MIN_ROUNDS, BUDGET / once)))
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(count):
        for name, call in rivals.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds
