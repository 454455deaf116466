"""Decode steps on a GPU as one CUDA graph: hundreds of kernels are started by one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_shared_cache import SharedCache

__all__ = ["GraphCache"]


class GraphCache(SharedCache):
    """A shared cache whose steps are replayed: all that they read stays where it is.

    The mask is as wide as the buffers, so that no shape changes from token to token.
    """

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        super().__init__(model, batch, capacity)
        self._steps: dict[int, tuple[Any, int, dict[str, Any]]] = {}

    def close(self) -> None:
        """Let the buffers go. Graphs stay with the session: none of their numbers comes again."""
        super().close()
        self._steps = {}

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; a row that is not alive stays where it is."""
        self.lengths += alive
        if (rows := len(tokens)) not in self._steps:
            self._steps[rows] = self._captured(rows)
        binding, graph, values = self._steps[rows]
        last = self.lengths[:, None]
        given = {
            "input_ids": np.array(tokens, np.int64)[:, None],
            "attention_mask": (np.arange(self.capacity) < last).astype(np.int64),
            "position_ids": last - 1,
        }
        for name in given.keys() & values.keys():
            values[name].update_inplace(given[name])
        self.session.run_with_iobinding(binding, graph)
        scores: np.ndarray = values["logits"].numpy()[:, 0]
        return scores.astype(np.float32, copy=False)

    def _captured(self, rows: int) -> tuple[Any, int, dict[str, Any]]:
        """A binding for steps of ``rows`` rows, the number of its graph, and what changes in it."""
        widths = {"input_ids": 1, "attention_mask": self.capacity, "position_ids": 1}
        values = {
            name: self.value(np.ones((rows, width), np.int64), self.device, 0)
            for name, width in widths.items()
            if name in self.inputs
        }
        logits = self.value(self.logits[:rows], self.device, 0)
        binding = self.bound(slice(0, rows), logits)
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        return binding, next(self.session.graphs), values | {"logits": logits}
