"""Weights of a checkpoint that are integers already, in groups of columns with a zero point or an
offset each, or floats of 4 bits in groups with a scale.

Such a tensor reads as the fp32 that it stands for, ``(codes - zeros) * scales``,
``codes * scales + offsets`` or ``codes * scales``, and has these behind it for those who can keep
them. What moves its rows, or puts it together with others, moves them, too; what changes its values
leaves a tensor that says so in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Literal

import numpy as np
import onnx_ir as ir

from lepton_passes.stacks import Stack
from lepton_passes.tensors import StreamedTensor, concat_rows

__all__ = [
    "FloatCodes",
    "Form",
    "Grid",
    "Grouped",
    "grouped",
    "joined",
    "rearranged",
    "without_grid",
]

Form = Literal["zeros", "offsets", "floats"]


class FloatCodes(StreamedTensor):
    """Twice the floats of E2M1 that a weight has, in INT8: a kernel may store them in 4 bits."""

    __slots__ = ()

    @classmethod
    def of(cls, tensor: StreamedTensor) -> FloatCodes:
        """``tensor``, of such numbers."""
        return cls(tensor.name or "", tensor.dtype, tensor.shape.numpy(), tensor.rows)


@dataclass(frozen=True)
class Grid:
    """The integers of a weight.

    Attributes:
        bits: 4 or 8.
        group: columns that share a scale, and a zero point or an offset.
        codes: UINT4 or UINT8 (rows, columns); of floats ``FloatCodes``.
        scales: fp32 (rows, columns / group).
        shifts: fp32 (rows, columns / group), zero points, which are whole numbers, or offsets;
            ``None`` of floats.
        form: what the codes go with.
        order: int32 (columns,), which column of the weight each one of the codes is (act-order);
            ``None`` where they are in its own order.
    """

    bits: int
    group: int
    codes: StreamedTensor
    scales: StreamedTensor
    shifts: StreamedTensor | None
    form: Form = "zeros"
    order: np.ndarray | None = None

    @property
    def kind(self) -> tuple[int, int, Form]:
        """What grids have in common whose rows can be put under each other."""
        return self.bits, self.group, self.form

    @cached_property
    def reach(self) -> tuple[int, int]:
        """The least and the largest zero point: of a weight of 16 million, 125,000 are read."""
        assert self.shifts is not None
        ends = [(block.min(), block.max()) for block in self.shifts.blocks() if block.size]
        return int(min(low for low, _ in ends)), int(max(high for _, high in ends))

    def in_groups_of(self, columns: int) -> Grid:
        """The same in groups of so many columns, which divide those of a group."""
        times = self.group // columns
        if times == 1:
            return self
        shifts = None if self.shifts is None else _repeated(self.shifts, times)
        return replace(self, group=columns, scales=_repeated(self.scales, times), shifts=shifts)

    @property
    def signed(self) -> bool:
        """Whether the codes are signed integers in offset binary, whose zero points say nothing."""
        return self.form == "zeros" and self.reach == (1 << (self.bits - 1),) * 2

    def integers(self) -> StreamedTensor:
        """The codes less the middle, of a weight that is ``signed``: INT4 or INT8."""
        codes, middle = self.codes, np.uint8(1 << (self.bits - 1))
        dtype = ir.DataType.INT4 if self.bits == 4 else ir.DataType.INT8

        def read(start: int, stop: int) -> np.ndarray:
            return (codes.rows(start, stop).view(np.uint8) - middle).view(dtype.numpy())

        return StreamedTensor(codes.name or "", dtype, codes.shape.numpy(), read)

    def zero_points(self) -> StreamedTensor:
        """The zero points in the type of the codes."""
        zeros, dtype = self.shifts, self.codes.dtype
        assert zeros is not None

        def read(start: int, stop: int) -> np.ndarray:
            return zeros.rows(start, stop).astype(np.uint8).view(dtype.numpy())

        return StreamedTensor(zeros.name or "", dtype, zeros.shape.numpy(), read)

    def offsets_3d(self) -> StreamedTensor:
        """The offsets as (rows, columns / group, 1), to be added to the integers of a group."""
        offsets = self.shifts
        assert offsets is not None

        def read(start: int, stop: int) -> np.ndarray:
            return offsets.rows(start, stop)[:, :, None]

        shape = (*offsets.shape.numpy(), 1)
        return StreamedTensor(offsets.name or "", offsets.dtype, shape, read)


class Grouped(StreamedTensor):
    """A matrix (rows, columns) with the integers that it was made of.

    Args:
        values: the fp32 it stands for.
        grid: gives the integers, or why they cannot be kept, when somebody asks.
    """

    __slots__ = ("_found", "_grid", "_once")

    def __init__(self, values: StreamedTensor, grid: Callable[[], Grid | str]) -> None:
        super().__init__(values.name or "", values.dtype, values.shape.numpy(), values.rows)
        self._grid, self._once = grid, Lock()
        self._found: Grid | str | None = None

    def grid(self) -> Grid | str:
        """The integers, or why they cannot be kept."""
        with self._once:
            if self._found is None:
                self._found = self._grid()
            return self._found


def _repeated(tensor: StreamedTensor, times: int) -> StreamedTensor:
    rows, columns = (int(d) for d in tensor.shape.numpy())

    def read(start: int, stop: int) -> np.ndarray:
        return np.repeat(tensor.rows(start, stop), times, axis=1)

    return StreamedTensor(tensor.name or "", tensor.dtype, (rows, columns * times), read)


def grouped(tensor: ir.TensorProtocol) -> Grouped | None:
    """``tensor``, or what a stack is made of, where its checkpoint has integers for it."""
    source = tensor.flat if isinstance(tensor, Stack) else tensor
    return source if isinstance(source, Grouped) else None


def joined(name: str, parts: Sequence[StreamedTensor]) -> StreamedTensor:
    """``parts`` one under the other, and their integers likewise where all have such."""
    return rearranged(lambda *tensors: concat_rows(name, tensors), *parts)


def rearranged(how: Callable[..., StreamedTensor], *parts: StreamedTensor) -> StreamedTensor:
    """``how(*parts)``, which puts whole rows into another order, and does the same to their
    integers where all have such."""
    values = how(*parts)
    found = [grouped(part) for part in parts]
    if all(part is None for part in found):
        return values

    def grid() -> Grid | str:
        grids = []
        for part in found:
            each = part.grid() if part is not None else "a part of it has no integers"
            if isinstance(each, str):
                return each
            grids.append(each)
        return _rearranged_grid(how, grids, made.name or "")

    made = Grouped(values, grid)
    return made


def _rearranged_grid(
    how: Callable[..., StreamedTensor], grids: Sequence[Grid], name: str
) -> Grid | str:
    first = grids[0]
    if any(each.kind != first.kind for each in grids):
        return "its parts have other bits or groups than each other"
    if len(grids) > 1 and any(each.order is not None for each in grids):
        return "its parts have columns out of order (act-order)"

    def moved(part: str) -> StreamedTensor:
        made = how(*(getattr(each, part) for each in grids))
        made.name = f"{name}_{part}"
        return made

    codes, scales = moved("codes"), moved("scales")
    if first.shifts is None:
        return replace(first, codes=FloatCodes.of(codes), scales=scales)
    return replace(first, codes=codes, scales=scales, shifts=moved("shifts"))


def without_grid(
    tensor: StreamedTensor, reason: str, *sources: ir.TensorProtocol
) -> StreamedTensor:
    """``tensor``, made of ``sources``; where one of them had integers, it says why it has none."""
    if all(grouped(source) is None for source in sources):
        return tensor
    return Grouped(tensor, lambda: reason)
