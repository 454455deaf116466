"""Weights in tiles of 16 columns, as the CPU kernels of ``lepton_plugins.linear`` read them.

``tiles.h`` of that plugin describes a tile. Rows of the neutral weight (outputs of a layer) are
columns there. Tiles are made 16 rows at a time, lazily.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.lowering.ort.packing import STORAGE
from lepton_passes.tensors import StreamedTensor, rows_of
from lepton_plugins.linear.spec import SCALE_UNIT, TILE

__all__ = ["pack", "pack_zeros", "seven_bits", "tiled", "tiled_zeros"]

_BLOCK_BYTES = 8 << 20
_FP16_LARGEST = 65504.0


def tiled(q: ir.TensorProtocol, scale: ir.TensorProtocol, bits: int, group: int) -> StreamedTensor:
    """INT4, UINT4 or INT8 (rows, columns) with fp32 scales as uint8 (tiles, bytes of a tile).

    Args:
        scale: (rows, columns / group), or (rows,) for one a row.
        bits: 4, 8, or 7, which rounds int8 once more, by groups of its own.
        group: columns of the weight that share a scale in the tiles.
    """
    rows, columns = (int(d) for d in q.shape.numpy())
    four, unsigned = bits == 4, q.dtype == ir.DataType.UINT4
    width = columns // group * (2 * TILE + group * TILE // (2 if four else 1))

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start * TILE, min(stop * TILE, rows)
        integers = np.asarray(rows_of(q, first, last)).view(np.int8)
        if unsigned:
            integers = integers - np.int8(8)
        scales = np.asarray(rows_of(scale, first, last)).reshape(last - first, -1)
        if bits == 7:
            integers, scales = seven_bits(integers, scales, group)
        return pack(integers, scales, bits, group, stop - start, name=q.name or "")

    made = StreamedTensor(
        f"{q.name}_tiles", ir.DataType.UINT8, (-(-rows // TILE), width), read, _BLOCK_BYTES
    )
    if q.name:
        made.metadata_props[STORAGE] = f"{q.name}/tiles{bits}/{group}"
    return made


def tiled_zeros(zeros: ir.TensorProtocol) -> StreamedTensor:
    """Zero points, UINT4 (rows, groups), as uint8 (tiles, 8 bytes for each group)."""
    rows, groups = (int(d) for d in zeros.shape.numpy())

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start * TILE, min(stop * TILE, rows)
        points = np.ascontiguousarray(rows_of(zeros, first, last)).view(np.uint8)
        return pack_zeros(points, stop - start)

    shape = (-(-rows // TILE), groups * TILE // 2)
    return StreamedTensor(f"{zeros.name}_tiles", ir.DataType.UINT8, shape, read, _BLOCK_BYTES)


def seven_bits(q: np.ndarray, scale: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Int8 with one scale a row as -63..63 with a scale for each group."""
    groups = q.reshape(len(q), -1, group).astype(np.float32)
    most = np.abs(groups).max(axis=2, keepdims=True)
    factor = np.divide(np.float32(63), most, out=np.zeros_like(most), where=most > 0)
    rounded = np.rint(groups * factor).astype(np.int8)
    return rounded.reshape(q.shape), (most[:, :, 0] / np.float32(63)) * scale


def pack(
    q: np.ndarray, scale: np.ndarray, bits: int, group: int, tiles: int, name: str = ""
) -> np.ndarray:
    """``tiles`` tiles of int8 (rows, columns) and fp32 (rows, columns / group) or (rows, 1).

    Raises:
        ValueError: a scale is too large for the tiles.
    """
    rows, columns = q.shape
    groups = columns // group
    scale = np.broadcast_to(scale, (rows, groups)) * np.float32(SCALE_UNIT)
    if scale.size and not np.abs(scale).max() <= _FP16_LARGEST:
        raise ValueError(f"{name}: a weight is too large, or no number")
    if rows < tiles * TILE:
        missing = ((0, tiles * TILE - rows), (0, 0))
        q, scale = np.pad(q, missing), np.pad(scale, missing)
    halves = scale.astype(np.float16).reshape(tiles, TILE, groups).transpose(0, 2, 1)
    stored = np.ascontiguousarray(halves).view(np.uint8)
    integers = {4: _four, 7: _seven, 8: _eight}[bits](q, tiles, groups, group)
    parts = [stored, integers.reshape(tiles, groups, -1)]
    whole: np.ndarray = np.concatenate(parts, axis=2).reshape(tiles, -1)
    return whole


def pack_zeros(points: np.ndarray, tiles: int) -> np.ndarray:
    """Zero points (rows, groups) of ``tiles`` tiles: those of columns c and 8 + c in one byte."""
    rows, groups = points.shape
    points = np.pad(points, ((0, tiles * TILE - rows), (0, 0)))
    halves = points.reshape(tiles, 2, TILE // 2, groups).transpose(1, 0, 3, 2)
    packed: np.ndarray = halves[0] | np.left_shift(halves[1], 4)
    return packed.reshape(tiles, -1)


def _four(q: np.ndarray, tiles: int, groups: int, group: int) -> np.ndarray:
    """Columns c and 8 + c of a tile in one byte, plus 8."""
    # Of a byte from an ONNX file only the low half counts; ours carry the sign through.
    unsigned = ((q + np.int8(8)) & np.int8(15)).view(np.uint8)
    unsigned = unsigned.reshape(tiles, 2, 8, groups, group // 4, 4)
    turned = unsigned.transpose(1, 0, 3, 4, 2, 5)
    packed: np.ndarray = np.left_shift(turned[1], 4)
    np.bitwise_or(packed, turned[0], out=packed)
    return packed


def _seven(q: np.ndarray, tiles: int, groups: int, group: int) -> np.ndarray:
    unsigned = (q + np.int8(64)).view(np.uint8).reshape(tiles, TILE, groups, group // 4, 4)
    return np.ascontiguousarray(unsigned.transpose(0, 2, 3, 1, 4))


def _eight(q: np.ndarray, tiles: int, groups: int, group: int) -> np.ndarray:
    pairs = q.view(np.uint8).reshape(tiles, TILE, groups, group // 2, 2)
    return np.ascontiguousarray(pairs.transpose(0, 2, 3, 1, 4))
