"""Matrices as rows of fp32 that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint
from lepton_compile.export.checkpoint.integers import EIGHT_BITS, Integers, four_bits
from lepton_passes.grouped import FloatCodes, Grid
from lepton_passes.stacks import flattened
from lepton_passes.tensors import StreamedTensor, rows_of

from .settings import check_type, unfit

__all__ = [
    "EIGHT",
    "FLOATS",
    "SCALES",
    "WORDS",
    "Rows",
    "by_whole",
    "check_finite",
    "consecutive",
    "constant",
    "fp4",
    "integers",
    "less",
    "nibbles",
    "powers_of_two",
    "scaled",
    "small_floats",
    "stored",
    "unpacked",
]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
EIGHT = (ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2)
"""Of codes that stand in a byte each."""
WORDS = (ir.DataType.INT32, ir.DataType.UINT32)
"""Of codes that are packed."""
SCALES = (*FLOATS, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E8M0, ir.DataType.UINT8)

# Codes of E2M1, the highest bit is the sign (OCP Microscaling Formats 1.0, 5.3.3).
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
_FP4 = np.concatenate([_FP4, -_FP4])
_FP4_TWICE = (2 * _FP4).astype(np.int8)
UNIT = 32
"""Groups of floats are a multiple of so many columns in our kernels."""
_E8M0_BIAS = 127  # the same, 5.4.1


@dataclass(frozen=True)
class Rows:
    """A matrix, or several of one size, one under the other.

    Attributes:
        shape: (rows, columns) of all of them.
        read: ``read(start, stop)`` gives fp32 (stop - start, columns).
        count: how many matrices there are.
        grid: gives the integers of one matrix that has zero points, or why they cannot be kept.
        integers: that hold its values.
        codes: of floats of 4 bits, bytes (stop - start, columns / 2) of two each.
    """

    shape: tuple[int, int]
    read: Callable[[int, int], np.ndarray]
    count: int = 1
    grid: Callable[[], Grid | str] | None = None
    integers: Integers = EIGHT_BITS
    codes: Callable[[int, int], np.ndarray] | None = None

    def tensor(self, name: str) -> StreamedTensor:
        """The rows of all matrices, one under the other."""
        return StreamedTensor(name, ir.DataType.FLOAT, self.shape, self.read)


def stored(checkpoint: Checkpoint, name: str, kinds: Iterable[ir.DataType]) -> Rows:
    """A tensor as it stands; a vector is one column. Bytes are exponents, as E8M0 has them.

    Raises:
        CheckpointError: its elements are of none of ``kinds``.
    """
    tensor, shape, count = _matrix(checkpoint, name)
    check_type(name, tensor.dtype, kinds)
    exponents = tensor.dtype == ir.DataType.UINT8

    def read(start: int, stop: int) -> np.ndarray:
        values = rows_of(tensor, start, stop).reshape(stop - start, shape[1])
        return powers_of_two(values) if exponents else values.astype(np.float32)

    return Rows(shape, read, count)


def integers(checkpoint: Checkpoint, name: str, bits: int, columns: int | None = None) -> Rows:
    """Unsigned integers packed along the rows, the first in the lowest bits of the first byte.

    Args:
        bits: 4 or 8.
        columns: of a row, where its last word has room for more.
    """
    tensor, (rows, words), count = _matrix(checkpoint, name)
    room = words * int(tensor.dtype.itemsize) * 8 // bits
    if columns is not None and not 0 < columns <= room:
        raise unfit(name, f"{columns} columns", [f"up to {room}"])

    def read(start: int, stop: int) -> np.ndarray:
        data = np.ascontiguousarray(rows_of(tensor, start, stop)).view(np.uint8)
        return unpacked(data, bits)[:, :columns].astype(np.float32)

    held = EIGHT_BITS if bits == 8 else Integers(4, columns or room)
    return Rows((rows, columns or room), read, count, integers=held)


def nibbles(checkpoint: Checkpoint, name: str) -> Rows:
    """Floats of 4 bits, two a byte."""
    tensor, (rows, width), count = _matrix(checkpoint, name)
    return small_floats(tensor, (rows, width), count)


def small_floats(tensor: ir.TensorProtocol, shape: tuple[int, int], count: int) -> Rows:
    """Floats of 4 bits, two in each of the bytes of ``count`` matrices, ``shape`` in all."""

    def codes(start: int, stop: int) -> np.ndarray:
        return rows_of(tensor, start, stop).reshape(stop - start, shape[1]).view(np.uint8)

    def read(start: int, stop: int) -> np.ndarray:
        return fp4(codes(start, stop))

    return Rows((shape[0], 2 * shape[1]), read, count, codes=codes)


def by_whole(how: np.ufunc, rows: Rows, checkpoint: Checkpoint, name: str) -> Rows:
    """``rows`` multiplied, or divided, by the one number of the tensor ``name``."""
    info = checkpoint.names()[name]
    check_type(name, info.dtype, FLOATS)
    if prod(info.shape) != 1:
        raise unfit(name, f"{prod(info.shape)} numbers", ["one, for the whole weight"])

    def read(start: int, stop: int) -> np.ndarray:
        whole = checkpoint.tensor(name).numpy().astype(np.float32).reshape(-1)
        with np.errstate(all="ignore"):  # who reads scales looks at them
            return np.asarray(how(rows.read(start, stop), whole[0]))

    return replace(rows, read=read)


def constant(shape: tuple[int, int], value: int) -> Rows:
    """A matrix of one number."""

    def read(start: int, stop: int) -> np.ndarray:
        return np.full((stop - start, shape[1]), value, np.float32)

    return Rows(shape, read)


def less(rows: Rows, offset: int) -> Rows:
    """``rows - offset``: integers in offset binary as signed ones."""
    return replace(rows, read=lambda start, stop: rows.read(start, stop) - np.float32(offset))


def fp4(data: np.ndarray) -> np.ndarray:
    """Bytes (.., n) as the fp32 (.., 2 n) that their nibbles are, the low one first."""
    values: np.ndarray = _FP4[unpacked(data, 4)]
    return values


def powers_of_two(exponents: np.ndarray) -> np.ndarray:
    """Scales of the microscaling formats, stored as a byte each, in fp32."""
    with np.errstate(over="ignore"):  # of the highest, which is no number
        powers: np.ndarray = np.ldexp(np.float32(1), exponents.astype(np.int32) - _E8M0_BIAS)
    return powers


def unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Bytes (.., n) as unsigned integers (.., n * 8 / bits) of a byte each; 4 or 8 bits."""
    if bits == 8:
        return data
    both = np.stack([data & 0x0F, data >> 4], axis=-1)
    return both.reshape(*data.shape[:-1], 2 * data.shape[-1])


def scaled(
    codes: Rows,
    scales: Rows,
    *,
    where: str,
    zeros: Rows | None = None,
    block: tuple[int, int] | None = None,
    groups: Callable[[], np.ndarray] | None = None,
    bits: int | None = None,
) -> Rows:
    """``(codes - zeros) * scales``, a scale for each block of rows and columns.

    Args:
        where: name of the weight, for messages.
        zeros: of the shape of the scales.
        block: rows and columns that share a scale, fewer at the ends, of those weights that have
            no scale for whole rows or for all; left out, the shapes tell.
        groups: gives the column of the scales that each column of the codes goes by, where columns
            in a row do not share one.
        bits: 4 or 8 of codes that are unsigned integers, which may then be kept; left out, they
            may not.

    Raises:
        CheckpointError: so many scales do not fit so many codes; on reading, one is no number.
    """
    scales = _finite(scales, where)
    if zeros is not None and zeros.shape != scales.shape:
        found = "zero points ({}, {}) of scales ({}, {})".format(*zeros.shape, *scales.shape)
        raise unfit(where, found, ["as many"])
    rows, columns = codes.shape[0] // codes.count, codes.shape[1]
    grid = scales.shape[0] // codes.count
    high, wide = _block((rows, columns), (grid, scales.shape[1]), block, where)

    group_of = None if groups is None else partial(_within, groups, columns, scales.shape[1], where)

    def read(start: int, stop: int) -> np.ndarray:
        values = codes.read(start, stop)
        if not len(values):
            return values
        at = np.arange(start, stop)
        of_row = at // rows * grid + at % rows // high
        first, last = int(of_row[0]), int(of_row[-1]) + 1

        def spread(part: Rows) -> np.ndarray:
            across = part.read(first, last)
            across = np.repeat(across, wide, axis=1) if order is None else across[:, order]
            return np.asarray(across[of_row - first, :columns])

        order = None if group_of is None else group_of()
        if zeros is not None:
            values -= spread(zeros)
        values *= spread(scales)
        return values

    made = replace(codes, read=read, integers=EIGHT_BITS)
    return made if high > 1 else _kept(made, codes, scales, zeros, wide, where, group_of, bits)


def _kept(
    made: Rows,
    codes: Rows,
    scales: Rows,
    zeros: Rows | None,
    wide: int,
    where: str,
    groups: Callable[[], np.ndarray] | None,
    bits: int | None,
) -> Rows:
    """``made`` with the codes behind it that can be kept: a scale for each ``wide`` columns."""
    if codes.codes is not None and zeros is None and groups is None and wide % UNIT == 0:
        floats = partial(_float_grid, codes.codes, codes.shape, scales, wide, where)
        return replace(made, grid=floats, integers=four_bits(wide, own=True))
    if (bits or codes.integers.bits) == 4:
        made = replace(made, integers=four_bits(wide))
    if bits is None or zeros is None or codes.count > 1:
        return made
    return replace(made, grid=partial(_grid, codes, zeros, scales, bits, wide, where, groups))


def _finite(scales: Rows, where: str) -> Rows:
    """The same, looked at as they are read: values would be no numbers, either.

    One of 0 or below is sound: a number too small for its type, or the sign of a group. All of 0
    were never filled in, for codes are what is left of weights divided by them.
    """

    def read(start: int, stop: int) -> np.ndarray:
        found = scales.read(start, stop)
        check_finite(found, where)
        if found.size and not found.any() and not scales.read(0, scales.shape[0]).any():
            raise unfit(where, "scales that are all 0", ["others among them"])
        return found

    return replace(scales, read=read)


def check_finite(scales: np.ndarray, where: str) -> None:
    """Refuse scales of which one is no number, or has no end. Raises CheckpointError."""
    fits = np.isfinite(scales)
    if not fits.all():
        raise unfit(where, f"a scale that is {scales[~fits][0]}", ["finite numbers"])


def consecutive(columns: int, groups: int) -> np.ndarray:
    """The group of each column where those of a group lie side by side."""
    return np.arange(columns) * groups // columns


def _grid(
    codes: Rows,
    zeros: Rows,
    scales: Rows,
    bits: int,
    wide: int,
    where: str,
    groups: Callable[[], np.ndarray] | None,
) -> Grid | str:
    """The integers, in groups of columns that lie side by side."""
    if codes.shape[1] % wide:
        return "its last group is not full"
    side_by_side, order = consecutive(codes.shape[1], scales.shape[1]), None
    if groups is not None and not np.array_equal(found := groups(), side_by_side):
        order = np.argsort(found, kind="stable").astype(np.int32)
        if not np.array_equal(found[order], side_by_side):
            return "its groups have different numbers of columns"
    whole = _unsigned(codes, bits, f"{where}_q", order)
    small = scales.tensor(f"{where}_scale"), zeros.tensor(f"{where}_zero")
    return Grid(bits, wide, whole, *small, order=order)


def _float_grid(
    codes: Callable[[int, int], np.ndarray],
    shape: tuple[int, int],
    scales: Rows,
    wide: int,
    where: str,
) -> Grid:
    """Floats of 4 bits as integers, twice as large, with half the scales."""

    def read(start: int, stop: int) -> np.ndarray:
        return np.asarray(_FP4_TWICE[unpacked(codes(start, stop), 4)])

    def half(start: int, stop: int) -> np.ndarray:
        return scales.read(start, stop) * np.float32(0.5)

    whole = FloatCodes(f"{where}_q", ir.DataType.INT8, shape, read)
    halves = StreamedTensor(f"{where}_scale", ir.DataType.FLOAT, scales.shape, half)
    return Grid(4, wide, whole, halves, None, "floats")


def _unsigned(codes: Rows, bits: int, name: str, order: np.ndarray | None) -> StreamedTensor:
    dtype = ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8

    def read(start: int, stop: int) -> np.ndarray:
        found = codes.read(start, stop).astype(np.uint8)
        return np.asarray(found if order is None else found[:, order]).view(dtype.numpy())

    return StreamedTensor(name, dtype, codes.shape, read)


def _block(
    codes: tuple[int, int], scales: tuple[int, int], block: tuple[int, int] | None, where: str
) -> tuple[int, int]:
    """Rows and columns of a matrix that share one scale."""
    if block is not None and tuple(-(-n // b) for n, b in zip(codes, block, strict=True)) == scales:
        return block
    fits = 0 not in scales and not codes[0] % scales[0] and not codes[1] % scales[1]
    if not fits or (block is not None and scales[1] > 1):
        found = "x".join(map(str, scales)) + " scales of " + "x".join(map(str, codes)) + " values"
        raise unfit(where, found, ["one for the matrix, a row, a group of columns, or a block"])
    return codes[0] // scales[0], codes[1] // scales[1]


def _within(given: Callable[[], np.ndarray], columns: int, groups: int, where: str) -> np.ndarray:
    order = given()
    fits = order.dtype.kind in "iu" and order.shape == (columns,)
    if fits and order.min() >= 0 and order.max() < groups:
        return order
    found = f"{order.size} columns of groups {order.min(initial=0)} to {order.max(initial=0)}"
    wanted = f"{columns} columns of groups 0 to {groups - 1}, whole numbers"
    raise unfit(where, f"{found}, {order.dtype}", [wanted])


def _matrix(checkpoint: Checkpoint, name: str) -> tuple[ir.TensorProtocol, tuple[int, int], int]:
    """A tensor, the shape of what it is as a matrix, and how many matrices that is."""
    tensor: ir.TensorProtocol = checkpoint.tensor(name)
    shape = tuple(int(d) for d in tensor.shape.numpy())
    if len(shape) == 3:
        return flattened(tensor), (shape[0] * shape[1], shape[2]), shape[0]
    return tensor, (shape[0] if shape else 1, prod(shape[1:])), 1
