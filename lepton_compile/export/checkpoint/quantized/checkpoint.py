"""A checkpoint whose quantized weights are read as fp32, under the names that the model has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint, TensorInfo
from lepton_compile.export.checkpoint.integers import EIGHT_BITS, Integers
from lepton_passes.grouped import Grouped
from lepton_passes.stacks import Stack
from lepton_passes.tensors import StreamedTensor

from .rows import EIGHT, Rows
from .settings import unfit

__all__ = ["QuantizedCheckpoint", "Weight"]


@dataclass(frozen=True)
class Weight:
    """A weight and what it is stored as.

    Attributes:
        tensor: its values, fp32.
        parts: names of the tensors that it is made of.
        integers: that hold its values.
    """

    tensor: StreamedTensor
    parts: tuple[str, ...]
    integers: Integers = EIGHT_BITS

    @classmethod
    def of(cls, name: str, rows: Rows, parts: Iterable[str]) -> Weight:
        """A matrix, or a stack of them, by its rows."""
        flat = rows.tensor(name)
        if rows.grid is not None:
            flat = Grouped(flat, rows.grid)
        made = Stack(flat, rows.count) if rows.count > 1 else flat
        return cls(made, tuple(parts), rows.integers)


class QuantizedCheckpoint:
    """A checkpoint with the values of its quantized weights.

    Args:
        packed: the checkpoint as it is stored.
        weights: by name of the parameter.
        dropped: what else is about quantization, such as scales of activations.

    Raises:
        CheckpointError: a tensor has codes, and nothing says what they stand for.
    """

    def __init__(
        self, packed: Checkpoint, weights: Mapping[str, Weight], dropped: Iterable[str] = ()
    ) -> None:
        self._packed = packed
        self._weights = weights
        known = packed.names()
        whole = {part: name for name, weight in weights.items() for part in weight.parts}
        left_out = {*whole, *dropped}
        self._names: dict[str, TensorInfo] = {}
        for name, info in known.items():
            if name in whole:  # at the place of the first of its parts
                target, weight = whole[name], weights[whole[name]]
                shape = tuple(int(d) for d in weight.tensor.shape.numpy())
                info = TensorInfo(ir.DataType.FLOAT, shape, integers=weight.integers)
                self._names.setdefault(target, info)
            elif name not in left_out:
                if info.dtype in EIGHT:
                    raise unfit(name, f"elements of {info.dtype.name} without scales")
                self._names[name] = info

    def names(self) -> Mapping[str, TensorInfo]:
        """As of ``Checkpoint``."""
        return self._names

    def files(self) -> tuple[Path, ...]:
        """As of ``Checkpoint``."""
        return self._packed.files()

    def tensor(self, name: str) -> StreamedTensor:
        """As of ``Checkpoint``."""
        if name in self._weights:
            return self._weights[name].tensor
        return self._packed.tensor(name)
