"""Integers of GGUF types that have 4 bits, and a scale and an offset for each 32 of a row; and the
floats of one that has those.

Q4_1   d, m fp16; 16 bytes, of which the low halves come first          w = d q + m
Q4_K   d, e fp16; 6 bits each of 8 scales s and 8 minima m; 128 bytes    w = d s q - e m
MXFP4  an exponent e of a byte; 16 bytes as those of Q4_1                w = 2^(e - 127) E2M1(q)

Layouts are those of ggml (``ggml-common.h``). Q4_0, which has no offsets, is found again by
rounding to 4 bits; other types have more bits, fewer, or levels that are no multiples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import read_bytes
from lepton_compile.export.checkpoint.gguf_header import GGUFTensor
from lepton_passes.grouped import FloatCodes, Grid
from lepton_passes.tensors import StreamedTensor

__all__ = ["GRIDS", "grid_of"]

GROUP = 32
Blocks = Callable[[np.ndarray], np.ndarray]


def _nibbles(data: np.ndarray) -> np.ndarray:
    """Bytes (.., n) as (.., 2 n): the low halves of all, then their high halves."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _halves(blocks: np.ndarray, place: int) -> np.ndarray:
    """The fp16 at byte ``2 * place`` of each block, in fp32 (blocks, 1)."""
    bytes_ = np.ascontiguousarray(blocks[:, 2 * place : 2 * place + 2])
    return bytes_.view(np.float16).astype(np.float32)


def _codes_1(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 4:])


def _codes_k(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 16:].reshape(len(blocks), 4, 32))


def _scales_k(blocks: np.ndarray) -> np.ndarray:
    return np.asarray(_halves(blocks, 0) * _six_bits(blocks)[0])


def _offsets_k(blocks: np.ndarray) -> np.ndarray:
    return np.asarray(-_halves(blocks, 1) * _six_bits(blocks)[1])


def _six_bits(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minima of the 8 groups of a block."""
    from gguf.quants import Q4_K

    scales, minima = Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))
    return scales.astype(np.float32), minima.astype(np.float32)


def _codes_floats(blocks: np.ndarray) -> np.ndarray:
    """Twice the floats, whose scales are half as large."""
    from gguf.quants import MXFP4

    return np.asarray(np.array(MXFP4.kvalues, np.int8)[_nibbles(blocks[:, 1:])])


def _scales_floats(blocks: np.ndarray) -> np.ndarray:
    return np.asarray(np.ldexp(np.float32(0.5), blocks[:, :1].astype(np.int32) - 127))


# Type -> bytes of a block, and what makes codes, scales and offsets of blocks (blocks, bytes); None
# for the offsets of floats.
GRIDS: dict[int, tuple[int, Blocks, Blocks, Blocks | None]] = {
    3: (20, _codes_1, lambda blocks: _halves(blocks, 0), lambda blocks: _halves(blocks, 1)),
    12: (144, _codes_k, _scales_k, _offsets_k),
    39: (17, _codes_floats, _scales_floats, None),
}


def grid_of(path: Path, tensor: GGUFTensor, shape: tuple[int, int]) -> Grid:
    """The integers of a matrix (rows, columns), or of several one under the other, of a type in
    ``GRIDS``.

    Raises:
        CheckpointError: on reading, the file ends too early.
    """
    size, codes, scales, offsets = GRIDS[tensor.type]
    width = tensor.length // shape[0]

    def part(name: str, of: Blocks, dtype: ir.DataType, columns: int) -> StreamedTensor:
        def read(start: int, stop: int) -> np.ndarray:
            data = read_bytes(path, tensor.offset + start * width, (stop - start) * width)
            found = of(data.reshape(-1, size)).reshape(stop - start, columns)
            return found.view(dtype.numpy())

        return StreamedTensor(f"{tensor.name}_{name}", dtype, (shape[0], columns), read)

    per_group = ir.DataType.FLOAT, shape[1] // GROUP
    factors = part("scales", scales, *per_group)
    if offsets is None:
        floats = FloatCodes.of(part("codes", codes, ir.DataType.INT8, shape[1]))
        return Grid(4, GROUP, floats, factors, None, "floats")
    integers = part("codes", codes, ir.DataType.UINT4, shape[1])
    return Grid(4, GROUP, integers, factors, part("offsets", offsets, *per_group), "offsets")
