"""Matrices in Q4_K, which gguf reads and does not write: enough of it for files of tests."""

from __future__ import annotations

import numpy as np

__all__ = ["BLOCK", "q4_k"]

BLOCK = 256


def q4_k(matrix: np.ndarray) -> np.ndarray:
    """(rows, columns), columns a multiple of 256, as the bytes (rows, columns / 256 * 144)."""
    groups = matrix.astype(np.float32).reshape(-1, 8, 32)
    minima = -np.minimum(groups.min(axis=2), 0)
    scales = (groups.max(axis=2) + minima) / 15
    (d, s), (e, m) = _six_bits(scales), _six_bits(minima)
    step, low = (d * s)[..., None], (e * m)[..., None]
    whole = np.rint((groups + low) / np.where(step > 0, step, 1))
    codes = np.clip(whole, 0, 15).astype(np.uint8).reshape(len(groups), 4, 2, 32)
    packed = (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(len(groups), 128)
    heads = [each.astype(np.float16).view(np.uint8) for each in (d, e)]
    blocks = np.concatenate([*heads, _twelve_bytes(s, m), packed], axis=1)
    return blocks.reshape(len(matrix), -1)


def _six_bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A factor for each block, (blocks, 1), and whole numbers of 6 bits, (blocks, 8)."""
    factor = (values.max(axis=1, keepdims=True) / 63).astype(np.float16).astype(np.float32)
    whole = np.rint(values / np.where(factor > 0, factor, 1))
    return factor, np.clip(whole, 0, 63).astype(np.uint8)


def _twelve_bytes(s: np.ndarray, m: np.ndarray) -> np.ndarray:
    high = [(each[:, 4:] >> 4) << 6 for each in (s, m)]
    last = (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    return np.concatenate([s[:, :4] | high[0], m[:, :4] | high[1], last], axis=1)
