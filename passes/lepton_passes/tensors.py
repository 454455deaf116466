"""Tensors that are read, and computed, in blocks of rows.

A weight is never held whole: an initializer carries a recipe for its rows, and the writer asks for
a few rows at a time. Passes build new tensors from old ones (concatenate, cast, quantize) the same
way, so a chain of passes costs one block of memory, whatever the size of the weight.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
from onnx_ir._core import TensorBase  # the base of every tensor class; not re-exported

__all__ = [
    "StreamedTensor",
    "WeightError",
    "cast",
    "concat_rows",
    "mapped",
    "rows_of",
    "transposed",
]

BLOCK_BYTES = 4 << 20
# Reading, rounding and writing overlap in a few threads; larger blocks are made one at a time.
WORKERS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
PARALLEL_BYTES = 32 << 20
TRANSPOSED_BYTES = 64 << 20
STORED_BITS = (4, 8, 16, 32, 64)  # of the types whose stored bytes are read back


class WeightError(ValueError):
    """A weight cannot be stored as it is asked for; the message names it. Raised as it is read."""


class StreamedTensor(TensorBase):
    """An ONNX tensor whose rows are produced on demand.

    Args:
        name: tensor name, for messages; the initializer's value carries the graph name.
        dtype: element type.
        shape: static shape. Rows are slices along axis 0; a scalar has one row.
        read: ``read(start, stop)`` returns rows ``start..stop`` as an array of shape
            ``(stop - start, *shape[1:])`` with numpy type ``dtype.numpy()`` (4-bit types unpacked,
            one ``ml_dtypes`` element each).
        block_bytes: size of a block of rows, as fp32, when all of them are read.
    """

    __slots__ = ("_block_bytes", "_dtype", "_read", "_shape", "_stored")

    def __init__(
        self,
        name: str,
        dtype: ir.DataType,
        shape: Sequence[int],
        read: Callable[[int, int], np.ndarray],
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        super().__init__(name)
        self._dtype = dtype
        self._shape = ir.Shape(tuple(shape), frozen=True)
        self._read = read
        self._stored: Callable[[int, int], np.ndarray] | None = None
        self._block_bytes = block_bytes

    # The protocol has attributes here; for a reader of them a property is the same.
    @property
    def dtype(self) -> ir.DataType:  # type: ignore[override]
        return self._dtype

    @property
    def shape(self) -> ir.Shape:  # type: ignore[override]
        return self._shape

    @property
    def raw(self) -> object:
        return self._read

    def __repr__(self) -> str:
        return self._repr_base()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start..stop`` along axis 0."""
        return (self._stored or self._read)(start, stop)

    def read_from(self, file: int, offset: int) -> bool:
        """Read rows from a file where ``tofile`` has put them, until ``make_again``: what is made
        of this tensor next does not make its rows once more.

        Args:
            file: descriptor of the file.
            offset: where the first row begins.

        Returns:
            False where its rows are not whole bytes, or are in a file already: all is as before.
        """
        row, rest = divmod(self.size // max(1, self._rows) * self._dtype.bitwidth, 8)
        if rest or self._dtype.bitwidth not in STORED_BITS or self._stored is not None:
            return False
        shape = self._shape.numpy()[1:]

        def read(start: int, stop: int) -> np.ndarray:
            count = max(0, min(stop, self._rows) - start)
            data = _bytes_at(file, offset + start * row, count * row)
            return _unpacked(data, self._dtype).reshape(count, *shape)

        self._stored = read
        return True

    def make_again(self) -> None:
        """Make rows as at first: the file of ``read_from`` goes."""
        self._stored = None

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in order, in blocks."""
        for start, stop in self._ranges():
            yield self.rows(start, stop)

    def numpy(self) -> np.ndarray:
        return self.rows(0, self._rows).reshape(self._shape.numpy())

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, *, stream: object = None) -> object:
        return self.numpy().__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self.numpy().__dlpack_device__()
        return int(kind), index

    def tobytes(self) -> bytes:
        return b"".join(_packed(block, self._dtype) for block in self.blocks())

    def tofile(self, file) -> None:  # type: ignore[no-untyped-def]  # signature of onnx_ir
        for data in self._packed_blocks():
            file.write(data)

    def _packed_blocks(self) -> Iterator[bytes]:
        """Storage bytes of all rows, in order; a few blocks are computed ahead of the writer."""
        ranges = list(self._ranges())
        if len(ranges) == 1 or self._block_bytes > PARALLEL_BYTES or WORKERS == 1:
            yield from (self._packed_rows(*each) for each in ranges)
            return
        with ThreadPoolExecutor(WORKERS) as pool:
            ahead: deque[Future[bytes]] = deque()
            for each in ranges:
                ahead.append(pool.submit(self._packed_rows, *each))
                if len(ahead) > WORKERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _packed_rows(self, start: int, stop: int) -> bytes:
        return _packed(self.rows(start, stop), self._dtype)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        count = self._rows
        row_bytes = 4 * max(1, self.size // max(1, count))
        step = max(1, self._block_bytes // row_bytes)
        return ((start, min(count, start + step)) for start in range(0, count, step))

    @property
    def _rows(self) -> int:
        shape = self._shape.numpy()
        return int(shape[0]) if shape else 1


def rows_of(tensor: ir.TensorProtocol, start: int, stop: int) -> np.ndarray:
    """Rows ``start..stop`` of any tensor, streamed where the tensor can."""
    if isinstance(tensor, StreamedTensor):
        return tensor.rows(start, stop)
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= 8 and len(tensor.shape):
        return _read_rows(tensor, start, stop)
    return np.atleast_1d(tensor.numpy())[start:stop]


def _read_rows(tensor: ir.ExternalTensor, start: int, stop: int) -> np.ndarray:
    """Rows out of the file: mapped, as onnx_ir has it, what was read would stay until the end."""
    rows, *rest = tensor.shape.numpy()
    start, stop = min(start, rows), min(stop, rows)
    count = math.prod(rest) * (stop - start)
    with open(tensor.path, "rb") as file:
        file.seek((tensor.offset or 0) + start * math.prod(rest) * (tensor.dtype.bitwidth // 8))
        found = np.fromfile(file, tensor.dtype.numpy(), count)
    return found.reshape(stop - start, *rest)


def cast(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """The same values in another element type."""
    if tensor.dtype == dtype:
        return tensor
    target = dtype.numpy()
    return mapped(tensor, tensor.name or "", lambda rows: rows.astype(target), dtype)


def mapped(
    tensor: ir.TensorProtocol,
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    dtype: ir.DataType | None = None,
) -> StreamedTensor:
    """A tensor of the same shape whose rows are ``change`` of the rows of ``tensor``."""

    def read(start: int, stop: int) -> np.ndarray:
        return change(rows_of(tensor, start, stop))

    return StreamedTensor(name, dtype or tensor.dtype, tensor.shape.numpy(), read)


def concat_rows(name: str, tensors: Sequence[ir.TensorProtocol]) -> StreamedTensor:
    """Tensors joined along axis 0; they agree in type and in every other axis."""
    first = tensors[0]
    edges = np.cumsum([0, *(int(t.shape.numpy()[0]) for t in tensors)])

    def read(start: int, stop: int) -> np.ndarray:
        parts = []
        for tensor, low, high in zip(tensors, edges[:-1], edges[1:], strict=True):
            a, b = max(start, int(low)), min(stop, int(high))
            if a < b:
                parts.append(rows_of(tensor, a - int(low), b - int(low)))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    return StreamedTensor(name, first.dtype, (int(edges[-1]), *first.shape.numpy()[1:]), read)


def transposed(tensor: ir.TensorProtocol) -> StreamedTensor:
    """A matrix with its two axes swapped.

    Each block of its rows reads the whole source, so its blocks are large: up to 64 MB of bytes.
    """
    rows, columns = (int(d) for d in tensor.shape.numpy())

    def read(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, rows), dtype=tensor.dtype.numpy())
        step = max(1, BLOCK_BYTES // max(1, 4 * columns))
        for row in range(0, rows, step):
            end = min(rows, row + step)
            out[:, row:end] = rows_of(tensor, row, end)[:, start:stop].T
        return out

    block_bytes = 4 * TRANSPOSED_BYTES // max(1, tensor.dtype.itemsize)
    return StreamedTensor(tensor.name or "", tensor.dtype, (columns, rows), read, int(block_bytes))


def _packed(block: np.ndarray, dtype: ir.DataType) -> bytes:
    """Storage bytes of a block: little endian, two 4-bit values a byte, low nibble first."""
    if dtype.bitwidth == 4:
        nibbles = block.reshape(-1).view(np.uint8) & 0x0F
        if nibbles.size % 2:
            nibbles = np.append(nibbles, np.uint8(0))
        return (nibbles[0::2] | (nibbles[1::2] << 4)).astype(np.uint8).tobytes()
    return np.ascontiguousarray(block).tobytes()


def _unpacked(data: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """The elements of which ``_packed`` made these bytes, in one dimension."""
    if dtype.bitwidth != 4:
        return data.view(dtype.numpy())
    nibbles = np.empty(2 * data.size, np.uint8)
    nibbles[0::2], nibbles[1::2] = data & 0x0F, data >> 4
    if dtype == ir.DataType.INT4:  # the sign is carried through, as in what passes round
        nibbles ^= 8
        nibbles -= 8
    return nibbles.view(dtype.numpy())


def _bytes_at(file: int, offset: int, count: int) -> np.ndarray:
    data = np.empty(count, np.uint8)
    left = data.data
    while left:  # a call moves at most 2 GiB
        moved = os.preadv(file, [left], offset)
        if not moved:
            raise EOFError(f"a file of weights ends {len(left)} bytes early")
        left, offset = left[moved:], offset + moved
    return data
