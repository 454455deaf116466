"""A decoder without a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["NoCache"]


class NoCache:
    """For an engine without a cache: every step runs all tokens again."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        self.model, self.batch, self.capacity = model, batch, capacity

    def close(self) -> None:
        """There is nothing to let go."""

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts."""
        self.rows = [list(row) for row in rows]
        last = [len(row) - 1 for row in rows]
        return np.asarray(self.model.logits(self.rows)[range(len(rows)), last])

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row."""
        return self.start([[*row, token] for row, token in zip(self.rows, tokens, strict=True)])
