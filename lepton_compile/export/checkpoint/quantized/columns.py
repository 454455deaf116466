"""Weights that are stored turned, column by column: GPTQ's and AWQ's."""

from __future__ import annotations

from threading import Lock

import numpy as np

from lepton_passes.tensors import StreamedTensor

__all__ = ["LastRead"]


class LastRead:
    """The tensor that was read last. One that is stored by its columns has to be read whole for any
    of its rows, and the rows behind are asked for next."""

    def __init__(self) -> None:
        self._lock = Lock()  # rows are asked for by several threads
        self._kept: tuple[str, np.ndarray] | None = None

    def array(self, tensor: StreamedTensor) -> np.ndarray:
        """All of ``tensor``."""
        name = tensor.name or ""
        with self._lock:
            if self._kept is None or self._kept[0] != name:
                self._kept = None  # before the next one is read, not after
                self._kept = (name, tensor.numpy())
            return self._kept[1]
