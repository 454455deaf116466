"""Tensors of a GGUF file as rows, and what its converter did to their values undone.

A stack of experts is read as one matrix, its matrices one under the other: it is never held whole.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.base import read_bytes
from lepton_compile.export.checkpoint.gguf_blocks import GRIDS, grid_of
from lepton_compile.export.checkpoint.gguf_header import GGUFTensor
from lepton_passes.grouped import Grouped
from lepton_passes.tensors import StreamedTensor, mapped

__all__ = ["PLAIN", "halves", "less_one", "reshaped", "stored_rows", "unpermuted"]

Read = Callable[[int, int], np.ndarray]

# Types that are read as they stand; everything else is dequantized to float32.
PLAIN = {
    0: ir.DataType.FLOAT,
    1: ir.DataType.FLOAT16,
    24: ir.DataType.INT8,
    25: ir.DataType.INT16,
    26: ir.DataType.INT32,
    27: ir.DataType.INT64,
    28: ir.DataType.DOUBLE,
    30: ir.DataType.BFLOAT16,
}


def stored_rows(path: Path, tensor: GGUFTensor, stack: bool) -> StreamedTensor:
    """The tensor as it is stored, dequantized, with its integers where they may be kept; of a stack
    the rows of all its matrices.

    Raises:
        CheckpointError: a type that the installed gguf cannot dequantize.
    """
    axes = min(len(tensor.shape), 2 if stack else 1)
    rows, tail = prod(tensor.shape[:axes]), tensor.shape[axes:]
    dtype = PLAIN.get(tensor.type)
    if dtype is not None:
        read = _plain(path, tensor, dtype, (rows, *tail))
    else:
        dtype = ir.DataType.FLOAT
        read = _dequantized(path, tensor, (rows, *tail))
    values = StreamedTensor(tensor.name, dtype, (rows, *tail), read)
    if tensor.type not in GRIDS or len(tail) != 1:
        return values
    return Grouped(values, lambda: grid_of(path, tensor, (rows, *tail)))


def _plain(path: Path, tensor: GGUFTensor, dtype: ir.DataType, shape: tuple[int, ...]) -> Read:
    width = tensor.length // shape[0]

    def plain(start: int, stop: int) -> np.ndarray:
        data = read_bytes(path, tensor.offset + start * width, (stop - start) * width)
        return data.view(dtype.numpy()).reshape(stop - start, *shape[1:])

    return plain


def _dequantized(path: Path, tensor: GGUFTensor, shape: tuple[int, ...]) -> Read:
    from gguf import GGMLQuantizationType, dequantize

    _check_dequantizes(path, tensor)
    kind = GGMLQuantizationType(tensor.type)
    if len(shape) == 1:  # blocks run across the rows, so there is no smaller unit to read

        def vector(start: int, stop: int) -> np.ndarray:
            data = read_bytes(path, tensor.offset, tensor.length)
            return np.asarray(dequantize(data[None], kind)[0][start:stop])

        return vector
    width = tensor.length // shape[0]

    def blocks(start: int, stop: int) -> np.ndarray:
        data = read_bytes(path, tensor.offset + start * width, (stop - start) * width)
        rows = dequantize(data.reshape(stop - start, width), kind)
        return np.asarray(rows).reshape((stop - start, *shape[1:]))

    return blocks


def _check_dequantizes(path: Path, tensor: GGUFTensor) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.type)
    block = np.zeros((1, int(GGML_QUANT_SIZES[kind][1])), np.uint8)
    try:
        with np.errstate(all="ignore"):
            dequantize(block, kind)
    except NotImplementedError as error:
        raise CheckpointError(
            "This GGUF tensor type cannot be read.",
            where=f"{path}: {tensor.name}",
            found=kind.name,
            hint="Convert the model again with a common type such as Q4_K or Q8_0.",
        ) from error


def less_one(tensor: StreamedTensor) -> StreamedTensor:
    """Weights of norms that are stored as ``1 + w``."""
    one = tensor.dtype.numpy().type(1)
    return mapped(tensor, tensor.name or "", lambda rows: rows - one)


def unpermuted(tensor: StreamedTensor, heads: int) -> StreamedTensor:
    """Rows in Hugging Face's order: first halves of all pairs of a head, then second halves.

    Raises:
        CheckpointError: so many heads do not divide the rows.
    """
    count = _shape(tensor)[0]
    if heads < 1 or count % (2 * heads):
        raise CheckpointError(
            "The heads of the GGUF metadata do not fit the tensor.",
            found=f"{tensor.name}: {count} rows, {heads} heads",
        )
    size = count // heads

    def read(start: int, stop: int) -> np.ndarray:
        index = np.arange(start, stop)
        head, inside = index // size, index % size
        half, pair = inside // (size // 2), inside % (size // 2)
        stored = head * size + 2 * pair + half
        low = int(stored.min(initial=start))
        rows = tensor.rows(low, int(stored.max(initial=low)) + 1)
        return np.take(rows, stored - low, axis=0)

    return StreamedTensor(tensor.name or "", tensor.dtype, _shape(tensor), read)


def halves(upper: StreamedTensor, lower: StreamedTensor, count: int) -> StreamedTensor:
    """Two stacks of ``count`` matrices as one: under each matrix of the first that of the second.

    Raises:
        CheckpointError: the matrices are not of one size.
    """
    if _shape(upper) != _shape(lower) or _shape(upper)[0] % count:
        raise CheckpointError(
            "Stacks of the GGUF file that belong together do not fit each other.",
            found=f"{upper.name} {_shape(upper)}, {lower.name} {_shape(lower)}",
        )
    rows, *tail = _shape(upper)
    each = rows // count
    alike = upper.dtype == lower.dtype
    dtype = upper.dtype if alike else ir.DataType.FLOAT

    def read(start: int, stop: int) -> np.ndarray:
        parts = [np.empty((0, *tail), dtype.numpy())]
        while start < stop:
            matrix, row = divmod(start, 2 * each)
            half, row = divmod(row, each)
            size, first = min(stop - start, each - row), matrix * each + row
            part = (upper, lower)[half].rows(first, first + size)
            parts.append(part if alike else part.astype(dtype.numpy()))
            start += size
        return np.concatenate(parts)

    return StreamedTensor(upper.name or "", dtype, (2 * rows, *tail), read)


def reshaped(tensor: StreamedTensor, axis: int) -> StreamedTensor:
    """With an axis of one that the converter left out."""
    shape = _shape(tensor)
    if axis == 0:
        return StreamedTensor(
            tensor.name or "",
            tensor.dtype,
            (1, *shape),
            lambda start, stop: tensor.numpy()[None][start:stop],
        )
    longer = (*shape[:axis], 1, *shape[axis:])

    def read(start: int, stop: int) -> np.ndarray:
        return tensor.rows(start, stop).reshape(stop - start, *longer[1:])

    return StreamedTensor(tensor.name or "", tensor.dtype, longer, read)


def _shape(tensor: StreamedTensor) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape.numpy())
