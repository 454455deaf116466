"""Weights as a checkpoint gives them that has integers, or floats of 4 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from lepton_passes.grouped import FloatCodes, Form, Grid, Grouped
from lepton_passes.tensors import StreamedTensor
from lepton_plugins.linear.spec import FLOATS

__all__ = ["Stored", "stored_in"]


@dataclass(frozen=True)
class Stored:
    """Integers of a weight: codes (rows, columns), zero points or offsets, and scales
    (rows, groups). Of floats codes are twice those, and there is nothing beside the scales.

    With an ``order`` (columns,), codes are those of the weight's columns in that order.
    """

    bits: int
    codes: np.ndarray
    shifts: np.ndarray
    scales: np.ndarray
    order: np.ndarray | None = None
    form: Form = "zeros"

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
        ordered: int | None = None,
        form: Form = "zeros",
    ) -> Stored:
        """Random ones; ``zeros`` are the least and the largest zero point, else any may be.

        ``ordered`` draws the order of columns.
        """
        least, most = zeros or (0, 2**bits - 1)
        numbers = np.random.default_rng(seed)
        grid = (rows, columns // group)
        codes = numbers.integers(0, 2**bits, (rows, columns))
        points = numbers.integers(least, most + 1, grid)
        points.flat[:2] = least, most
        scales = numbers.uniform(0.005, 0.02, grid).astype(np.float32)
        order = None
        if ordered is not None:
            order = np.random.default_rng(ordered).permutation(columns).astype(np.int32)
        if form == "offsets":
            points = numbers.uniform(-0.1, 0.1, grid).astype(np.float32)
        elif form == "floats":
            codes, points = np.array(FLOATS)[codes], np.zeros(grid, np.float32)
        return cls(bits, codes, points, scales, order, form)

    @property
    def group(self) -> int:
        """Columns that share a scale and a zero point or an offset."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    @property
    def values(self) -> np.ndarray:
        """What the integers stand for."""
        shifts, scales = (np.repeat(a, self.group, axis=1) for a in (self.shifts, self.scales))
        codes = self.codes.astype(np.float32)
        found = (codes - shifts) * scales if self.form == "zeros" else codes * scales + shifts
        found = np.asarray(found, dtype=np.float32)
        return found if self.order is None else found[:, np.argsort(self.order)]

    def tensor(self, name: str = "w") -> Grouped:
        """As a reader of checkpoints gives them."""
        dtype = ir.DataType.UINT4 if self.bits == 4 else ir.DataType.UINT8
        dtype = ir.DataType.INT8 if self.form == "floats" else dtype
        codes = _streamed(name, self.codes.astype(np.uint8).view(dtype.numpy()), dtype)
        small = (self.scales, self.shifts.astype(np.float32))
        scales, shifts = (_streamed(name, each, ir.DataType.FLOAT) for each in small)
        grid = Grid(self.bits, self.group, codes, scales, shifts, self.form, self.order)
        if self.form == "floats":
            grid = replace(grid, codes=FloatCodes.of(codes), shifts=None)
        return Grouped(_streamed(name, self.values, ir.DataType.FLOAT), lambda: grid)


def stored_in(model: ir.Model, **weights: Stored | Grouped) -> ir.Model:
    """``model`` with weights from such a checkpoint in place of its own."""
    for name, stored in weights.items():
        tensor = stored.tensor(name) if isinstance(stored, Stored) else stored
        model.graph.initializers[name].const_value = tensor
    return model


def _streamed(name: str, array: np.ndarray, dtype: ir.DataType) -> StreamedTensor:
    return StreamedTensor(name, dtype, array.shape, lambda start, stop: array[start:stop])
