"""An encoder and a decoder on a GPU: what the one gives the other stays there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing
from lepton_compile.runtime.loader_ort_cuda import DEVICE
from lepton_compile.runtime.loader_source import Pair

__all__ = ["CudaPair", "reorder"]


class CudaPair(Pair):
    """The sessions of an encoder and a decoder, as one."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        super().__init__(_Resident(encoder), decoder)


class _Resident:
    """A session whose outputs stay where they are computed, unless they are asked for as arrays."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_ort_values(self, names: list[str], given: Mapping[str, Any]) -> list[Any]:
        """Outputs by name, as OrtValues on the device."""
        binding = self._session.io_binding()
        for name, value in given.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, DEVICE)
        self._session.run_with_iobinding(binding)
        return list(binding.get_outputs())


def reorder(buffer: Any, order: np.ndarray) -> None:
    """Rows of a buffer in another order, by way of the host."""
    with failing("beams need an engine in fp16"):
        held = buffer.numpy()
    held[: len(order)] = held[order]
    buffer.update_inplace(held)
