"""Bytes as the kernels of onnxruntime want them, made from neutral weights row by row.

4 bits are stored unsigned with an implied zero point of 8, 8 bits with 128, so the sign bit flips.
Tensors whose bytes are equal carry the same ``lepton.storage``: an engine writes them once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.tensors import StreamedTensor, rows_of, transposed

__all__ = ["STORAGE", "columns_first", "nbits", "repeated_scales"]

STORAGE = "lepton.storage"


def nbits(q: ir.TensorProtocol, shape: tuple[int, ...]) -> StreamedTensor:
    """Unsigned storage of INT4 or INT8 (rows, columns), as uint8 of ``shape``.

    ``shape`` is (rows, blocks, bytes) for MatMulNBits and (rows, bytes) for GatherBlockQuantized.
    """
    four = q.dtype == ir.DataType.INT4

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.ascontiguousarray(rows_of(q, start, stop)).view(np.uint8)
        made = _nibbles(rows) if four else np.bitwise_xor(rows, np.uint8(0x80))
        return np.reshape(made, (stop - start, *shape[1:]))

    made = StreamedTensor(f"{q.name}_u", ir.DataType.UINT8, shape, read)
    if q.name:
        made.metadata_props[STORAGE] = f"{q.name}/{'u4' if four else 'u8'}"
    return made


def columns_first(q: ir.TensorProtocol) -> StreamedTensor:
    """INT8 (rows, columns) as (columns, rows), the layout of DynamicQuantizeMatMul."""
    return transposed(q)


def repeated_scales(scale: ir.TensorProtocol, blocks: int) -> StreamedTensor:
    """One scale a row, (rows,), repeated for each block: (rows, blocks)."""

    def read(start: int, stop: int) -> np.ndarray:
        return np.repeat(rows_of(scale, start, stop)[:, None], blocks, axis=1)

    rows = int(scale.shape.numpy()[0])
    return StreamedTensor(f"{scale.name}_blocks", scale.dtype, (rows, blocks), read)


def _nibbles(rows: np.ndarray) -> np.ndarray:
    """Two values a byte, low nibble first, with the sign bit of each flipped."""
    low, high = rows[:, 0::2], rows[:, 1::2]
    packed: np.ndarray = np.left_shift(high, 4)
    np.bitwise_or(packed, low & np.uint8(0x0F), out=packed)
    np.bitwise_xor(packed, np.uint8(0x88), out=packed)
    return packed
