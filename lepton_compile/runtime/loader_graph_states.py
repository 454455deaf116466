"""Decode steps on a GPU as one CUDA graph, of a decoder with states."""

from __future__ import annotations

import numpy as np

from lepton_compile.runtime.loader_cuda_graph import GraphCache
from lepton_compile.runtime.loader_shared_states import SharedStates

__all__ = ["GraphStates"]


class GraphStates(SharedStates, GraphCache):
    """A run that captures is two runs, which a state would take for two tokens."""

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits after the prompts. A graph is made in front of them: there states begin anew."""
        if (count := len(rows)) not in self._steps:
            self._steps[count] = binding, graph, _ = self._captured(count)
            self.session.run_with_iobinding(binding, graph)
        return super().start(rows)
