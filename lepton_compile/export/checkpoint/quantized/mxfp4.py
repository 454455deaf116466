"""Experts in floats of 4 bits with a scale for 32 of them, as GPT-OSS is published.

    X_blocks  U8 (experts, rows, columns / 32, 16), two floats (E2M1) a byte
    X_scales  U8 (experts, rows, columns / 32), exponents of two (E8M0)
    X         what the model has: (experts, columns, rows)

OCP Microscaling Formats 1.0, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint
from lepton_passes.tensors import StreamedTensor, rows_of

from .checkpoint import QuantizedCheckpoint, Weight
from .rows import check_finite, fp4, powers_of_two
from .settings import check_type, unfit

__all__ = ["read_mxfp4"]

BLOCK = 32


def read_mxfp4(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``. Raises CheckpointError."""
    known, weights = checkpoint.names(), {}
    for blocks in known:
        name = blocks.removesuffix("_blocks")
        scales = f"{name}_scales"
        if name != blocks and scales in known:
            weights[name] = Weight(_experts(checkpoint, name, blocks, scales), (blocks, scales))
    return QuantizedCheckpoint(checkpoint, weights)


def _experts(checkpoint: Checkpoint, name: str, blocks: str, scales: str) -> StreamedTensor:
    known = checkpoint.names()
    shape = known[blocks].shape
    if len(shape) != 4 or shape[3] != BLOCK // 2 or known[scales].shape != shape[:3]:
        found = f"{known[scales].shape} scales of {shape} bytes"
        wanted = f"(experts, rows, columns / {BLOCK}) and the same with {BLOCK // 2} bytes"
        raise unfit(name, found, [wanted])
    for part in (blocks, scales):
        check_type(part, known[part].dtype, [ir.DataType.UINT8])
    experts, rows, groups, _ = shape
    packed, exponents = checkpoint.tensor(blocks), checkpoint.tensor(scales)

    def read(start: int, stop: int) -> np.ndarray:
        turned = np.empty((stop - start, groups * BLOCK, rows), dtype=np.float32)
        for index in range(start, stop):  # a stack can be larger than memory allows
            values = fp4(rows_of(packed, index, index + 1)[0])
            powers = powers_of_two(rows_of(exponents, index, index + 1)[0])
            check_finite(powers, name)
            values *= powers[..., None]
            turned[index - start] = values.reshape(rows, -1).T
        return turned

    return StreamedTensor(name, ir.DataType.FLOAT, (experts, groups * BLOCK, rows), read)
