"""The truth in numpy: what the tiles hold, and what a layer of them computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_plugins.linear.spec import SCALE_UNIT, TILE, limit

__all__ = ["linear", "rounded", "unpacked", "zero_points"]

Array = NDArray[Any]


def unpacked(tiles: Array, inner: int, columns: int, bits: int, group: int) -> tuple[Array, Array]:
    """Integers (columns, inner) and fp32 scales (columns, inner / group) of packed weights."""
    count, groups = len(tiles), inner // group
    parts = tiles.reshape(count, groups, -1)
    stored = np.ascontiguousarray(parts[:, :, : 2 * TILE]).view(np.float16)
    scales = stored.astype(np.float32).transpose(0, 2, 1).reshape(-1, groups) / SCALE_UNIT
    packed = parts[:, :, 2 * TILE :]
    if bits == 4:
        bytes_ = packed.reshape(count, groups, group // 4, 8, 4)
        halves = np.stack([bytes_ & 15, bytes_ >> 4], axis=3).astype(np.int32) - 8
        integers = halves.reshape(count, groups, group // 4, TILE, 4)
    elif bits == 7:
        integers = packed.reshape(count, groups, group // 4, TILE, 4).astype(np.int32) - 64
    else:
        integers = packed.reshape(count, groups, group // 2, TILE, 2).view(np.int8).astype(np.int32)
    integers = integers.transpose(0, 3, 1, 2, 4).reshape(count * TILE, inner)
    return integers[:columns], scales[:columns]


def zero_points(zeros: Array, inner: int, columns: int, group: int) -> Array:
    """Zero points (columns, inner / group) of weights of 4 bits, 0 to 15."""
    bytes_ = zeros.reshape(len(zeros), inner // group, TILE // 2)
    points = np.concatenate([bytes_ & 15, bytes_ >> 4], axis=2).astype(np.int32)
    return points.transpose(0, 2, 1).reshape(-1, inner // group)[:columns]


def rounded(x: Array, bits: int, group: int) -> tuple[Array, Array]:
    """Activations (rows, inner) as integers, and fp32 scales (rows, blocks)."""
    block = 32 if bits == 4 else group
    blocks = x.astype(np.float32).reshape(len(x), -1, block)
    most = np.abs(blocks).max(axis=2, keepdims=True)
    largest = np.float32(limit(bits, block))
    factor = np.divide(largest, most, out=np.zeros_like(most), where=most > 0)
    return np.rint(blocks * factor).astype(np.int32), (most / largest)[:, :, 0]


def linear(
    x: Array,
    tiles: Array,
    bias: Array | None,
    columns: int,
    bits: int,
    group: int,
    zeros: Array | None = None,
) -> tuple[Array, Array]:
    """(rows, columns) in fp64, and the sum of magnitudes of what was added up.

    With zero points that is two sums: of weights less 8, and of the rest.
    """
    inner = x.shape[1]
    weights, scales = unpacked(tiles, inner, columns, bits, group)
    q, scale = rounded(x, bits, group)
    activations = (q * scale[:, :, None].astype(np.float64)).reshape(len(x), inner)
    matrix = weights * np.repeat(scales.astype(np.float64), group, axis=1)
    y, size = activations @ matrix.T, np.abs(activations) @ np.abs(matrix).T
    if zeros is not None:
        rest = (8 - zero_points(zeros, inner, columns, group)) * scales.astype(np.float64)
        rest = np.repeat(rest, group, axis=1)
        y, size = y + activations @ rest.T, size + np.abs(activations) @ np.abs(rest).T
    return (y, size) if bias is None else (y + bias, size + np.abs(bias))
