"""Bytes as the kernels of onnxruntime want them, made from neutral weights row by row.

4 bits are stored unsigned with an implied zero point of 8, 8 bits with 128, so the sign bit flips;
what is unsigned with zero points of its own stays as it is.
Tensors whose bytes are equal carry the same ``lepton.storage``, whatever their shapes: an engine
writes them once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.linear import Weight
from lepton_passes.match import has_blocks, largest_block
from lepton_passes.tensors import StreamedTensor, rows_of

__all__ = ["STORAGE", "block_of", "nbits", "packed_zeros", "scales_and_zeros"]

STORAGE = "lepton.storage"


def block_of(weight: Weight) -> int | str:
    """Columns that share a scale in the kernels that take blocks, or why none takes the weight."""
    block = weight.group or largest_block(weight.columns)
    if block is None:
        return f"{weight.columns} columns are no multiple of 16"
    if not has_blocks(block, 256 if weight.zero is not None else block):
        return f"no kernel has groups of {block} columns"
    return block


def scales_and_zeros(body: Body, weight: Weight, block: int) -> tuple[ir.Value, ir.Value | None]:
    """Those of a weight for each block of so many columns, its zero points where it has any."""
    scale, zero = weight.values[1], weight.zero
    if weight.group is None:
        blocks = weight.columns // block
        scale = body.derive([scale], f"{scale.name}_blocks", lambda t: _repeated(t[0], blocks))
    if zero is not None:
        zero = body.derive([zero], f"{zero.name}_blocks", lambda t: packed_zeros(t[0]))
    return scale, zero


def nbits(q: ir.TensorProtocol, shape: tuple[int, ...]) -> StreamedTensor:
    """Unsigned storage of integers of 4 or 8 bits (rows, columns), as uint8 of ``shape``.

    ``shape`` is (rows, blocks, bytes) for MatMulNBits and (rows, bytes) for GatherBlockQuantized.
    """
    four = q.dtype.bitwidth == 4
    sign = 0 if q.dtype in (ir.DataType.UINT4, ir.DataType.UINT8) else 0x88 if four else 0x80

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.ascontiguousarray(rows_of(q, start, stop)).view(np.uint8)
        made = _nibbles(rows) if four else rows
        return np.reshape(np.bitwise_xor(made, np.uint8(sign)), (stop - start, *shape[1:]))

    made = StreamedTensor(f"{q.name}_u", ir.DataType.UINT8, shape, read)
    if q.name:
        made.metadata_props[STORAGE] = f"{q.name}/{'u4' if four else 'u8'}"
    return made


def packed_zeros(zero: ir.TensorProtocol) -> StreamedTensor:
    """UINT4 or UINT8 (rows, blocks) as the uint8 that kernels take: of 4 bits two a byte, and each
    row begins with a byte of its own."""
    rows, blocks = (int(d) for d in zero.shape.numpy())
    four = zero.dtype.bitwidth == 4
    width = -(-blocks // 2) if four else blocks

    def read(start: int, stop: int) -> np.ndarray:
        points = np.ascontiguousarray(rows_of(zero, start, stop)).view(np.uint8)
        return _nibbles(np.pad(points, ((0, 0), (0, blocks % 2)))) if four else points

    return StreamedTensor(f"{zero.name}_u", ir.DataType.UINT8, (rows, width), read)


def _repeated(scale: ir.TensorProtocol, blocks: int) -> StreamedTensor:
    """One scale a row, (rows,), repeated for each block: (rows, blocks)."""

    def read(start: int, stop: int) -> np.ndarray:
        return np.repeat(rows_of(scale, start, stop)[:, None], blocks, axis=1)

    rows = int(scale.shape.numpy()[0])
    return StreamedTensor(f"{scale.name}_blocks", scale.dtype, (rows, blocks), read)


def _nibbles(rows: np.ndarray) -> np.ndarray:
    """Two values a byte, low nibble first."""
    low, high = rows[:, 0::2], rows[:, 1::2]
    packed: np.ndarray = np.left_shift(high, 4)
    np.bitwise_or(packed, low & np.uint8(0x0F), out=packed)
    return packed
