"""The cache of a decoder with states whose engine writes all of it where it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_shared_cache import SharedCache
from lepton_compile.runtime.loader_states import states_of

__all__ = ["SharedStates"]


class SharedStates(SharedCache):
    """Buffers that past and present share. Tokens of before are masked; states have to be zero."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        super().__init__(model, batch, capacity)
        self.states = list[tuple[Any, str]]()
        held = self.buffers[2 * len(model.cache["layers"]) :]
        for (*_, dtype), (*_, state) in zip(states_of(model, batch), held, strict=True):
            if dtype == "bfloat16":
                from lepton_compile.runtime.loader_ort_cuda import BITS

                dtype = BITS
            self.states.append((state, dtype))

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts."""
        for state, dtype in self.states:
            state.update_inplace(np.zeros(state.shape(), dtype))
        return super().start(rows)
