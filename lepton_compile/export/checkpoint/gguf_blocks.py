"""Integers of GGUF types that have 4 bits, and a scale and an offset for each 32 of a row.

Q4_1   d, m fp16; 16 bytes, of which the low halves come first          w = d q + m
Q4_K   d, e fp16; 6 bits each of 8 scales s and 8 minima m; 128 bytes    w = d s q - e m

Layouts are those of ggml (``ggml-common.h``). Q4_0, which has no offsets, is found again by who
rounds to 4 bits; other types have more bits, fewer, or levels that are no multiples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import read_bytes
from lepton_compile.export.checkpoint.gguf_header import GGUFTensor
from lepton_passes.grouped import Grid
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


# Type -> bytes of a block, and what makes codes, scales and offsets of blocks (blocks, bytes).
GRIDS: dict[int, tuple[int, Blocks, Blocks, Blocks]] = {
    3: (20, _codes_1, lambda blocks: _halves(blocks, 0), lambda blocks: _halves(blocks, 1)),
    12: (144, _codes_k, _scales_k, _offsets_k),
}


def grid_of(path: Path, tensor: GGUFTensor, shape: tuple[int, int]) -> Grid:
    """The integers of a matrix (rows, columns), or of several one under the other, of a type in
    ``GRIDS``.

    Raises:
        CheckpointError: on reading, the file ends too early.
    """
    size, *parts = GRIDS[tensor.type]
    width = tensor.length // shape[0]

    def part(name: str, of: Blocks, dtype: ir.DataType, columns: int) -> StreamedTensor:
        def read(start: int, stop: int) -> np.ndarray:
            data = read_bytes(path, tensor.offset + start * width, (stop - start) * width)
            found = of(data.reshape(-1, size)).reshape(stop - start, columns)
            return found.view(dtype.numpy())

        return StreamedTensor(f"{tensor.name}_{name}", dtype, (shape[0], columns), read)

    codes, scales, offsets = parts
    floats = ir.DataType.FLOAT, shape[1] // GROUP
    return Grid(
        4,
        GROUP,
        part("codes", codes, ir.DataType.UINT4, shape[1]),
        part("scales", scales, *floats),
        part("offsets", offsets, *floats),
        offsets=True,
    )
