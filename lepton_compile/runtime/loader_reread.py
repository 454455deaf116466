"""Rows whose tokens turn by other angles once there are many of them (LongRoPE)."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["REREAD", "Rereads"]

REREAD = {"cache": {"reread": int}}


class Rereads:
    """A cache of rows that have up to ``reread`` tokens, and one of those that have more.

    The engine turns all of a call by the angles that its longest row has, and what is cached stays
    as it was turned. So rows of the two kinds run apart, and one that becomes longer is read anew,
    as transformers does it: its answer is that which it gets alone.
    """

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        self.model, self.batch, self.capacity = model, batch, capacity
        self.caches, self.numbers = dict[bool, Any](), dict[bool, list[int]]()

    def close(self) -> None:
        """Let the buffers go."""
        while self.caches:
            self.caches.popitem()[1].close()

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts."""
        self.rows, self.numbers = [*map(list, rows)], {}
        width = self.model.manifest["generation"]["vocabulary"]
        self.logits = np.zeros((len(rows), width), np.float32)
        for far in (False, True):
            self._read(far, [n for n in range(len(rows)) if self._is_far(n) is far])
        return self.logits

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; a row that is not alive stays where it is."""
        for row, token, lives in zip(self.rows, tokens, alive, strict=True):
            row += [token] * lives
        far = [n for n in range(len(self.rows)) if alive[n] and self._is_far(n)]
        if {*far} - {*self.numbers.get(True, ())}:  # one has become so
            self._read(True, far)
        elif far:
            self._step(True, tokens, alive)
        near = [lives and not self._is_far(n) for n, lives in enumerate(alive)]
        if any(near):
            self._step(False, tokens, near)
        return self.logits

    def _is_far(self, number: int) -> bool:
        limit: int = self.model.cache["reread"]
        return len(self.rows[number]) > limit

    def _read(self, far: bool, numbers: list[int]) -> None:
        """Read rows from their beginning."""
        if not numbers:
            return
        cache = self.caches.pop(far, None)
        if cache is not None and cache.batch != len(numbers):
            cache = cache.close()
        self.caches[far] = cache or self.model.new_cache(len(numbers), self.capacity)
        self.numbers[far] = numbers
        self.logits[numbers] = self.caches[far].start([self.rows[n] for n in numbers])

    def _step(self, far: bool, tokens: list[int], alive: list[bool]) -> None:
        numbers = self.numbers[far]
        last, going = ([each[n] for n in numbers] for each in (tokens, alive))
        scores = self.caches[far].step(last, going)
        for row, number in zip(scores, numbers, strict=True):
            if alive[number]:  # else it may be among the others by now
                self.logits[number] = row
