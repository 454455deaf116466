"""Weights in tiles of 16 columns, as the CPU kernels of ``lepton_plugins.linear`` read them.

``tiles.h`` of that plugin describes a tile. Rows of the neutral weight (outputs of a layer) are
columns there. Tiles are made 16 rows at a time, lazily.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.lowering.ort.packing import STORAGE
from lepton_passes.tensors import StreamedTensor, WeightError, rows_of
from lepton_plugins.linear.spec import FLOATS, SCALE_UNIT, TILE

__all__ = ["pack", "seven_bits", "tiled"]

_BLOCK_BYTES = 8 << 20
_FP16_LARGEST = 65504.0

# Code of each of -12..12; what is none of the floats never comes.
_CODES = np.zeros(25, np.int8)
_CODES[np.array(FLOATS)[::-1] + 12] = np.arange(16)[::-1]


def tiled(
    q: ir.TensorProtocol,
    scale: ir.TensorProtocol,
    bits: int,
    group: int,
    shift: ir.TensorProtocol | None = None,
    *,
    floats: bool = False,
) -> StreamedTensor:
    """Integers (rows, columns) with fp32 scales as uint8 (tiles, bytes of a tile).

    Args:
        q: INT4 or INT8; UINT4 or UINT8 with ``shift``.
        scale: (rows, columns / group), or (rows,) for one a row.
        bits: 4, 8, or 7, which rounds int8 once more, by groups of its own.
        group: columns of the weight that share a scale in the tiles.
        shift: of each group, (rows, columns / group) and perhaps 1: zero points in the type of
            ``q``, or offsets in fp32. The tiles have offsets then.
        floats: ``q`` are twice the floats of E2M1, in INT8, and ``bits`` is 4.
    """
    rows, columns = (int(d) for d in q.shape.numpy())
    head = 2 * TILE * (1 if shift is None else 2)
    width = columns // group * (head + group * TILE * (4 if bits == 4 else 8) // 8)

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start * TILE, min(stop * TILE, rows)
        integers = np.asarray(rows_of(q, first, last)).view(np.int8)
        scales = np.asarray(rows_of(scale, first, last)).reshape(last - first, -1)
        offsets = None
        if shift is not None:
            integers = integers - np.array(1 << (bits - 1), np.uint8).view(np.int8)
            found = np.asarray(rows_of(shift, first, last)).reshape(scales.shape)
            offsets = _offsets(found, scales, np.float32(1 << (bits - 1)))
        if bits == 7:
            integers, scales = seven_bits(integers, scales, group)
        tiles, name = stop - start, q.name or ""
        return pack(integers, scales, bits, group, tiles, offsets, floats=floats, name=name)

    made = StreamedTensor(
        f"{q.name}_tiles", ir.DataType.UINT8, (-(-rows // TILE), width), read, _BLOCK_BYTES
    )
    if q.name:
        made.metadata_props[STORAGE] = f"{q.name}/tiles{bits}/{group}"
    return made


def _offsets(shift: np.ndarray, scales: np.ndarray, middle: np.float32) -> np.ndarray:
    """What the integers less the middle, times a scale, are short of the weights."""
    if shift.dtype == np.float32:
        return np.asarray(shift + middle * scales)
    return np.asarray((middle - shift.view(np.uint8)) * scales)


def seven_bits(q: np.ndarray, scale: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Int8 with one scale a row as -63..63 with a scale for each group."""
    groups = q.reshape(len(q), -1, group).astype(np.float32)
    most = np.abs(groups).max(axis=2, keepdims=True)
    factor = np.divide(np.float32(63), most, out=np.zeros_like(most), where=most > 0)
    rounded = np.rint(groups * factor).astype(np.int8)
    return rounded.reshape(q.shape), (most[:, :, 0] / np.float32(63)) * scale


def pack(
    q: np.ndarray,
    scale: np.ndarray,
    bits: int,
    group: int,
    tiles: int,
    offset: np.ndarray | None = None,
    *,
    floats: bool = False,
    name: str = "",
) -> np.ndarray:
    """``tiles`` tiles of int8 (rows, columns), fp32 scales (rows, columns / group) or (rows, 1),
    and offsets (rows, columns / group). With ``floats`` integers are twice floats of E2M1.

    Raises:
        WeightError: a scale or an offset is too large for the tiles.
    """
    rows, columns = q.shape
    groups = columns // group
    heads = [np.broadcast_to(scale, (rows, groups)), *([] if offset is None else [offset])]
    if rows < tiles * TILE:
        missing = ((0, tiles * TILE - rows), (0, 0))
        q, heads = np.pad(q, missing), [np.pad(each, missing) for each in heads]
    if floats:
        q = _CODES[q + np.int8(12)] - np.int8(8)
    if bits == 4:
        integers = _four(q, tiles, groups, group)
    else:
        integers = _bytes(q, 1 << (bits - 1), tiles, groups, group)
    parts = [*(_halves(each, name) for each in heads), integers.reshape(tiles, groups, -1)]
    whole: np.ndarray = np.concatenate(parts, axis=2).reshape(tiles, -1)
    return whole


def _halves(values: np.ndarray, name: str) -> np.ndarray:
    """fp32 (rows, groups) as the bytes (tiles, groups, 32) of their fp16."""
    most = np.abs(values).max(initial=0)
    if not np.isfinite(most):
        raise WeightError(f"{name}: a weight is NaN or infinite")
    if most > _FP16_LARGEST / SCALE_UNIT:
        raise WeightError(
            f"{name}: a weight is too large for the fp16 scales of our kernels; those of "
            "kernels: builtin take it"
        )
    values = values * np.float32(SCALE_UNIT)
    halves = values.astype(np.float16).reshape(-1, TILE, values.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(halves).view(np.uint8)


def _four(q: np.ndarray, tiles: int, groups: int, group: int) -> np.ndarray:
    """Columns c and 8 + c of a tile in one byte, plus 8."""
    # Of a byte from an ONNX file only the low half counts; ours carry the sign through.
    unsigned = ((q + np.int8(8)) & np.int8(15)).view(np.uint8)
    unsigned = unsigned.reshape(tiles, 2, 8, groups, group // 4, 4)
    turned = unsigned.transpose(1, 0, 3, 4, 2, 5)
    packed: np.ndarray = np.left_shift(turned[1], 4)
    np.bitwise_or(packed, turned[0], out=packed)
    return packed


def _bytes(q: np.ndarray, middle: int, tiles: int, groups: int, group: int) -> np.ndarray:
    """Four of a column in turn, plus the middle."""
    unsigned = q.view(np.uint8) + np.uint8(middle)
    fours = unsigned.reshape(tiles, TILE, groups, group // 4, 4)
    return np.ascontiguousarray(fours.transpose(0, 2, 3, 1, 4))
