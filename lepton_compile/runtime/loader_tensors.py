"""Tensors of TensorRT's types as arrays of numpy, and back."""

from __future__ import annotations

import numpy as np

__all__ = ["NUMPY", "for_engine", "from_engine", "item_size"]

# What holds a tensor of TensorRT's types on the host; BF16 and FP8 by their bits alone.
NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "uint16",
    "FP8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


def item_size(kind: str) -> int:
    """Bytes of one number."""
    return int(np.dtype(NUMPY[kind]).itemsize)


def for_engine(array: np.ndarray, kind: str) -> np.ndarray:
    """``array`` as the engine takes it; bfloat16 is the upper half of float32, rounded to even."""
    if kind != "BF16":
        return np.asarray(array, NUMPY[kind], order="C")
    bits = np.asarray(array, np.float32, order="C").view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)


def from_engine(array: np.ndarray, kind: str) -> np.ndarray:
    """Floats of any width as float32, the rest as it is."""
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False) if kind == "HALF" else array
