"""Bytes as the kernels of onnxruntime want them, made from neutral weights row by row.

4 bits are stored unsigned with an implied zero point of 8, 8 bits with 128, so the sign bit flips;
what is unsigned with zero points of its own stays as it is.
Tensors whose bytes are equal carry the same ``lepton.storage``: an engine writes them once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.tensors import StreamedTensor, rows_of

__all__ = ["STORAGE", "nbits", "packed_zeros", "repeated_scales"]

STORAGE = "lepton.storage"


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


def repeated_scales(scale: ir.TensorProtocol, blocks: int) -> StreamedTensor:
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
