"""Weights as a checkpoint with zero points gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.grouped import Grid, Grouped
from lepton_passes.tensors import StreamedTensor

__all__ = ["Stored", "stored_in"]


@dataclass(frozen=True)
class Stored:
    """Integers of a weight: codes (rows, columns), zeros and scales (rows, groups)."""

    bits: int
    codes: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray

    @classmethod
    def made(
        cls,
        rows: int,
        columns: int,
        group: int = 32,
        *,
        bits: int = 4,
        zeros: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> Stored:
        """Random ones; ``zeros`` are the least and the largest zero point, else any may be."""
        least, most = zeros or (0, 2**bits - 1)
        numbers = np.random.default_rng(seed)
        grid = (rows, columns // group)
        codes = numbers.integers(0, 2**bits, (rows, columns))
        points = numbers.integers(least, most + 1, grid)
        points.flat[:2] = least, most
        return cls(bits, codes, points, numbers.uniform(0.005, 0.02, grid).astype(np.float32))

    @property
    def group(self) -> int:
        """Columns that share a scale and a zero point."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    @property
    def values(self) -> np.ndarray:
        """What the integers stand for."""
        zeros, scales = (np.repeat(a, self.group, axis=1) for a in (self.zeros, self.scales))
        return np.asarray((self.codes - zeros) * scales, dtype=np.float32)

    def tensor(self, name: str = "w") -> Grouped:
        """As a reader of checkpoints gives them."""
        unsigned = ir.DataType.UINT4 if self.bits == 4 else ir.DataType.UINT8
        codes = self.codes.astype(np.uint8).view(unsigned.numpy())
        parts = (codes, self.zeros.astype(np.float32), self.scales)
        dtypes = (unsigned, ir.DataType.FLOAT, ir.DataType.FLOAT)
        streams = [_streamed(name, *each) for each in zip(parts, dtypes, strict=True)]
        values = _streamed(name, self.values, ir.DataType.FLOAT)
        return Grouped(values, lambda: Grid(self.bits, self.group, *streams))


def stored_in(model: ir.Model, **weights: Stored | Grouped) -> ir.Model:
    """``model`` with weights from such a checkpoint in place of its own."""
    for name, stored in weights.items():
        tensor = stored.tensor(name) if isinstance(stored, Stored) else stored
        model.graph.initializers[name].const_value = tensor
    return model


def _streamed(name: str, array: np.ndarray, dtype: ir.DataType) -> StreamedTensor:
    return StreamedTensor(name, dtype, array.shape, lambda start, stop: array[start:stop])
