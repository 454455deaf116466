"""Stacks of matrices of one size, such as the weights of experts: (count, rows, columns).

Rows of the matrices, one under the other, are what is read: a stack can be much larger than memory
allows, and so can one of its matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
import onnx_ir as ir

from lepton_passes.tensors import StreamedTensor, rows_of

__all__ = ["Stack", "Turned", "flattened", "one_by_one", "taking_turns", "transposed_each"]


class Stack(StreamedTensor):
    """A matrix (count * rows, ..) as a stack (count, rows, ..) of the same bytes.

    Args:
        flat: the matrix, or what has further axes behind rows.
        count: matrices in the stack; divides the rows.
    """

    __slots__ = ("flat",)

    def __init__(self, flat: ir.TensorProtocol, count: int) -> None:
        self.flat = flat = _streamed(flat)
        rows, *tail = (int(d) for d in flat.shape.numpy())
        each = rows // count

        def read(start: int, stop: int) -> np.ndarray:
            return flat.rows(start * each, stop * each).reshape(stop - start, each, *tail)

        super().__init__(flat.name or "", flat.dtype, (count, each, *tail), read)

    def tobytes(self) -> bytes:
        return self.flat.tobytes()

    def _packed_blocks(self) -> Iterator[bytes]:
        return self.flat._packed_blocks()


class Turned(StreamedTensor):
    """A matrix (count * rows, columns) as a stack (count, columns, rows), each of its matrices
    turned.

    Args:
        flat: the matrix, which is what it is read as again when it is turned back.
        count: matrices in the stack; divides the rows.
    """

    __slots__ = ("flat",)

    def __init__(self, flat: StreamedTensor, count: int) -> None:
        self.flat = flat
        rows, columns = (int(d) for d in flat.shape.numpy())
        each = rows // count

        def read(start: int, stop: int) -> np.ndarray:
            made = np.empty((stop - start, columns, each), flat.dtype.numpy())
            for index in range(start, stop):  # one at a time: a stack can be larger than memory
                made[index - start] = flat.rows(index * each, (index + 1) * each).T
            return made

        super().__init__(flat.name or "", flat.dtype, (count, columns, each), read)


def _streamed(tensor: ir.TensorProtocol) -> StreamedTensor:
    if isinstance(tensor, StreamedTensor):
        return tensor

    def read(start: int, stop: int) -> np.ndarray:
        return rows_of(tensor, start, stop)

    return StreamedTensor(tensor.name or "", tensor.dtype, tensor.shape.numpy(), read)


def flattened(tensor: ir.TensorProtocol) -> StreamedTensor:
    """A stack as one matrix, its matrices one under the other."""
    if isinstance(tensor, Stack):
        return tensor.flat
    count, rows, columns = (int(d) for d in tensor.shape.numpy())

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start // rows, -(-stop // rows)
        whole = rows_of(tensor, first, last).reshape(-1, columns)
        return whole[start - first * rows : stop - first * rows]

    # Blocks of whole matrices: a part of one costs as much to read.
    shape = (count * rows, columns)
    return StreamedTensor(tensor.name or "", tensor.dtype, shape, read, 4 * rows * columns)


class _Recent:
    """The matrix of a stack that was read last: who turns it reads all of it for any rows, and the
    rows behind are asked for next. One for all stacks, so that what is written is let go."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: tuple[ir.TensorProtocol, int, np.ndarray] | None = None

    def matrix(self, tensor: ir.TensorProtocol, index: int) -> np.ndarray:
        """Matrix ``index`` of the stack."""
        with self._lock:
            if self._held is None or self._held[0] is not tensor or self._held[1] != index:
                self._held = None  # before the next one is read, not after
                self._held = (tensor, index, rows_of(tensor, index, index + 1)[0])
            return self._held[2]


_recent = _Recent()


def transposed_each(tensor: ir.TensorProtocol) -> StreamedTensor:
    """A stack (count, columns, rows) as one matrix (count * rows, columns): each one turned."""
    if isinstance(tensor, Turned):
        return tensor.flat
    count, columns, rows = (int(d) for d in tensor.shape.numpy())

    def read(start: int, stop: int) -> np.ndarray:
        parts = []
        for index in range(start // rows, -(-stop // rows)):
            first, last = max(start - index * rows, 0), min(stop - index * rows, rows)
            parts.append(_recent.matrix(tensor, index)[:, first:last].T)
        return np.concatenate(parts)

    shape = (count * rows, columns)
    return StreamedTensor(tensor.name or "", tensor.dtype, shape, read, 4 * rows * columns)


def taking_turns(tensor: ir.TensorProtocol, count: int) -> StreamedTensor:
    """A flat stack whose matrices have two halves of rows, with rows of the halves in turns."""
    total, *tail = (int(d) for d in tensor.shape.numpy())
    rows = total // count
    half = rows // 2

    def read(start: int, stop: int) -> np.ndarray:
        parts = [
            _in_turns(tensor, index * rows, max(start - index * rows, 0), stop - index * rows, half)
            for index in range(start // rows, -(-stop // rows))
        ]
        return np.concatenate(parts)

    return StreamedTensor(f"{tensor.name}_turns", tensor.dtype, (total, *tail), read)


def one_by_one(tensor: ir.TensorProtocol, count: int) -> StreamedTensor:
    """A flat stack whose matrices have rows of two halves in turns, with one half behind the other:
    what undoes :func:`taking_turns`."""
    total, *tail = (int(d) for d in tensor.shape.numpy())
    rows = total // count
    half = rows // 2

    def read(start: int, stop: int) -> np.ndarray:
        parts = []
        while start < stop:
            matrix, row = divmod(start, rows)
            end = min(stop, matrix * rows + (half if row < half else rows))
            first = matrix * rows + 2 * (row % half) + row // half
            found = rows_of(tensor, first, first + 2 * (end - start) - 1)
            parts.append(found[::2])
            start = end
        return np.concatenate(parts)

    return StreamedTensor(f"{tensor.name}_halves", tensor.dtype, (total, *tail), read)


def _in_turns(tensor: ir.TensorProtocol, base: int, start: int, stop: int, half: int) -> np.ndarray:
    """Rows ``start..stop`` of one matrix, whose rows begin at ``base``, in the order of turns."""
    stop = min(stop, 2 * half)
    low, high = start // 2, -(-stop // 2)
    halves: Sequence[np.ndarray] = [
        rows_of(tensor, base + offset + low, base + offset + high) for offset in (0, half)
    ]
    turns = np.stack(halves, axis=1).reshape(2 * (high - low), *halves[0].shape[1:])
    return turns[start - 2 * low : stop - 2 * low]
