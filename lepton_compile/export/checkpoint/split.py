"""Tensors that a checkpoint keeps packed and a model has apart, such as query, key and value.

Each part is a run of the packed tensor's rows, read by itself; the packed one is not among the
names any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lepton_passes.grouped import rearranged
from lepton_passes.tensors import StreamedTensor, rows_of

from .base import Checkpoint, TensorInfo

__all__ = ["SplitCheckpoint"]


class SplitCheckpoint:
    """A checkpoint with its packed tensors in parts.

    Args:
        packed: the checkpoint as it is stored.
        parts: names of the parts of a tensor and how many of its rows each has, in their order;
            empty where it stays whole, as it does where they are not all of its rows.
    """

    def __init__(self, packed: Checkpoint, parts: Callable[[str], Mapping[str, int]]) -> None:
        self._packed = packed
        self._names: dict[str, TensorInfo] = {}
        self._part_of: dict[str, tuple[str, int]] = {}
        for name, info in packed.names().items():
            found, first = parts(name), 0
            if not found or sum(found.values()) != info.shape[0]:
                self._names[name] = info
                continue
            for part, rows in found.items():
                shape = (rows, *info.shape[1:])
                self._names[part] = TensorInfo(info.dtype, shape, integers=info.integers)
                self._part_of[part] = (name, first)
                first += rows

    def names(self) -> Mapping[str, TensorInfo]:
        """As of ``Checkpoint``."""
        return self._names

    def files(self) -> tuple[Path, ...]:
        """As of ``Checkpoint``."""
        return self._packed.files()

    def tensor(self, name: str) -> StreamedTensor:
        """As of ``Checkpoint``."""
        if name not in self._part_of:
            return self._packed.tensor(name)
        (stored, first), count = self._part_of[name], self._names[name].shape[0]

        def part(whole: StreamedTensor) -> StreamedTensor:
            def read(start: int, stop: int) -> np.ndarray:
                return rows_of(whole, first + start, first + stop)

            shape = (count, *whole.shape.numpy()[1:])
            return StreamedTensor(name, whole.dtype, shape, read)

        return rearranged(part, self._packed.tensor(stored))
