"""Weights that have a shape and no values, for graphs that are planned and not built."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import ExportError
from lepton_passes.body import SMALL
from lepton_passes.tensors import StreamedTensor

__all__ = ["fill"]


def fill(model: ir.Model) -> None:
    """Tensors of the right shape; values of all but small ones must not be asked for."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            assert value.dtype is not None
            assert value.shape is not None
            shape = value.shape.numpy()
            # Passes look into small ones, such as the bias of two labels, for constants among them.
            read = _any_values(name, shape) if math.prod(shape) <= SMALL else _no_values
            value.const_value = StreamedTensor(name, value.dtype, shape, read)


def _any_values(name: str, shape: Sequence[int]) -> Callable[[int, int], np.ndarray]:
    """Numbers that mean nothing to any pass, different ones for each name."""
    number = 0.5 + zlib.crc32(name.encode()) / 2**33
    return lambda start, stop: np.full((stop - start, *shape[1:]), number, np.float32)


def _no_values(start: int, stop: int) -> np.ndarray:
    raise ExportError("a plan has no weights to read")
