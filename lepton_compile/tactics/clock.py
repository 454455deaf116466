"""Times of rivals that do the same.

They run in turn, so that a slow moment hits all of them, and of each a short time counts, though
not the shortest: beside other work on the machine the least was now and then two thirds of what it
is on a quiet one. Where few rows are read the weights come from memory, as in a whole model:
something else is put into the caches first. Where a rival seems better, all are timed once more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from lepton_compile.tactics.machine import last_level_bytes

__all__ = ["BUSY", "Clock", "short", "spread"]

K = TypeVar("K", bound=str)

BUSY = 1.5
"""Spread of times from which on a machine has too much else to do to be measured."""

ROUNDS, SLOW_ROUNDS = 7, 3
SLOW = 4e-3  # seconds of a call from which on more rounds cost too much
MOST_EVICTED = 64 << 20
AHEAD = 0.95


class Clock:
    """Takes times; holds as much memory as the caches of the processor."""

    def __init__(self) -> None:
        size = min(last_level_bytes() * 5 // 4, MOST_EVICTED)
        self._other = np.ones(size, np.uint8)

    def times(
        self, rivals: Mapping[K, Any], feeds: Mapping[str, np.ndarray], usual: K, *, cold: bool
    ) -> dict[K, list[float]]:
        """Seconds of calls of each rival.

        Args:
            rivals: sessions of onnxruntime.
            feeds: of all of them.
            usual: the rival that another one would replace.
            cold: nothing of them is in the caches.
        """
        slowest = max(self._round(rivals, feeds, cold).values())  # not counted: all is new
        rounds = SLOW_ROUNDS if slowest > SLOW else ROUNDS
        taken = self._rounds(rivals, feeds, cold, rounds)
        times = _by_name(taken)
        if min(map(short, times.values())) < AHEAD * short(times[usual]) and spread(times) <= BUSY:
            times = _by_name(taken + self._rounds(rivals, feeds, cold, 2 * rounds))
        return times

    def _rounds(
        self, rivals: Mapping[K, Any], feeds: Mapping[str, np.ndarray], cold: bool, count: int
    ) -> list[dict[K, float]]:
        """Each time another one begins: the first is the one to be interrupted."""
        order = list(rivals.items())
        taken = []
        for _ in range(count):
            taken.append(self._round(dict(order), feeds, cold))
            order = order[1:] + order[:1]
        return taken

    def _round(
        self, rivals: Mapping[K, Any], feeds: Mapping[str, np.ndarray], cold: bool
    ) -> dict[K, float]:
        if cold:
            self._other.max()
        seconds = {}
        for name, session in rivals.items():
            start = time.perf_counter()
            session.run(None, feeds)
            seconds[name] = time.perf_counter() - start
        return seconds


def _by_name(taken: Sequence[Mapping[K, float]]) -> dict[K, list[float]]:
    return {name: [each[name] for each in taken] for name in taken[0]}


def short(times: Sequence[float]) -> float:
    """The time that a quarter of the calls took at most."""
    return sorted(times)[len(times) // 4]


def spread(times: Mapping[K, list[float]]) -> float:
    """Median time of a call over the least, of the rival where that is largest."""
    return max(float(np.median(each)) / min(each) for each in times.values())
