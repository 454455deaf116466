"""The truth in numpy: what the tiles hold, and what a layer of them computes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_plugins.linear.spec import FLOATS, LEAST, SCALE_UNIT, TILE, block, limit

__all__ = ["Unpacked", "linear", "rounded", "unpacked"]

Array = NDArray[Any]


class Unpacked(NamedTuple):
    """``q * scale + offset``: integers (columns, inner), twice fp32 (columns, inner / group)."""

    q: Array
    scale: Array
    offset: Array

    def matrix(self) -> Array:
        """The weights, fp64 (columns, inner)."""
        group = self.q.shape[1] // self.scale.shape[1]
        wide = [np.repeat(each.astype(np.float64), group, axis=1) for each in self[1:]]
        return np.asarray(self.q * wide[0] + wide[1])


def unpacked(
    tiles: Array,
    inner: int,
    columns: int,
    bits: int,
    group: int,
    *,
    offsets: bool = False,
    floats: bool = False,
) -> Unpacked:
    """What packed weights are; without offsets, those are 0. Floats count twice."""
    count, groups = len(tiles), inner // group
    parts = tiles.reshape(count, groups, -1)
    head = 2 * TILE * (1 + offsets)
    stored = np.ascontiguousarray(parts[:, :, :head]).view(np.float16).astype(np.float32)
    apart = stored.reshape(count, groups, 1 + offsets, TILE).transpose(2, 0, 3, 1) / SCALE_UNIT
    of_groups = apart.reshape(1 + offsets, -1, groups)[:, :columns]
    packed = parts[:, :, head:]
    if bits == 4:
        bytes_ = packed.reshape(count, groups, group // 4, 8, 4)
        halves = np.stack([bytes_ & 15, bytes_ >> 4], axis=3).astype(np.int32)
        halves = np.array(FLOATS, np.int32)[halves] if floats else halves - 8
        integers = halves.reshape(count, groups, group // 4, TILE, 4)
    else:
        integers = packed.reshape(count, groups, group // 4, TILE, 4).astype(np.int32)
        integers -= 1 << (bits - 1)
    integers = integers.transpose(0, 3, 1, 2, 4).reshape(count * TILE, inner)
    scales = of_groups[0]
    return Unpacked(integers[:columns], scales, of_groups[1] if offsets else 0 * scales)


def rounded(x: Array, bits: int, group: int) -> tuple[Array, Array]:
    """Activations (rows, inner) as integers, and fp32 scales (rows, blocks)."""
    blocks = x.astype(np.float32).reshape(len(x), -1, block(bits, group))
    most = np.abs(blocks).max(axis=2, keepdims=True)
    largest = np.float32(limit(bits))
    factor = np.divide(largest, most, out=np.zeros_like(most), where=most >= LEAST)
    return np.rint(blocks * factor).astype(np.int32), (most / largest)[:, :, 0]


def linear(
    x: Array,
    tiles: Array,
    bias: Array | None,
    columns: int,
    bits: int,
    group: int,
    *,
    offsets: bool = False,
    floats: bool = False,
) -> tuple[Array, Array]:
    """(rows, columns) in fp64, and the sum of magnitudes of what was added up.

    With offsets that is two sums: of integers with their scales, and of offsets.
    """
    inner = x.shape[1]
    weights = unpacked(tiles, inner, columns, bits, group, offsets=offsets, floats=floats)
    q, scale = rounded(x, bits, group)
    activations = (q * scale[:, :, None].astype(np.float64)).reshape(len(x), inner)
    none = np.zeros_like(weights.scale)
    parts = weights._replace(offset=none), weights._replace(q=0 * weights.q)
    y = activations @ weights.matrix().T
    size = sum(np.abs(activations) @ np.abs(part.matrix()).T for part in parts)
    return (y, size) if bias is None else (y + bias, size + np.abs(bias))
