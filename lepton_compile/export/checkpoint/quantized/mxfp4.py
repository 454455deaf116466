"""Experts in floats of 4 bits with a scale for 32 of them, as GPT-OSS is published.

    X_blocks  U8 (experts, rows, columns / 32, 16), two floats (E2M1) a byte
    X_scales  U8 (experts, rows, columns / 32), exponents of two (E8M0)
    X         what the model has: (experts, columns, rows)

OCP Microscaling Formats 1.0, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint
from lepton_compile.export.checkpoint.safetensors import plain
from lepton_passes.grouped import Grouped
from lepton_passes.stacks import Turned

from .checkpoint import QuantizedCheckpoint, Weight
from .rows import Rows, powers_of_two, scaled, small_floats
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
            rows = _experts(checkpoint, name, blocks, scales)
            flat = rows.tensor(name) if rows.grid is None else Grouped(rows.tensor(name), rows.grid)
            made = Turned(flat, rows.count)
            weights[name] = Weight(made, (blocks, scales), rows.integers)
    return QuantizedCheckpoint(checkpoint, weights)


def _experts(checkpoint: Checkpoint, name: str, blocks: str, scales: str) -> Rows:
    """The matrices, one under the other, as they are stored: (experts * rows, columns)."""
    known = checkpoint.names()
    shape = known[blocks].shape
    if len(shape) != 4 or shape[3] != BLOCK // 2 or known[scales].shape != shape[:3]:
        found = f"{known[scales].shape} scales of {shape} bytes"
        wanted = f"(experts, rows, columns / {BLOCK}) and the same with {BLOCK // 2} bytes"
        raise unfit(name, found, [wanted])
    for part in (blocks, scales):
        check_type(part, known[part].dtype, [ir.DataType.UINT8])
    experts, rows, groups, _ = shape
    total, width = experts * rows, groups * BLOCK // 2
    packed = plain(blocks, replace(known[blocks], shape=(total, width)))
    exponents = plain(scales, replace(known[scales], shape=(total, groups)))
    powers = Rows((total, groups), lambda a, b: powers_of_two(exponents.rows(a, b)), experts)
    return scaled(small_floats(packed, (total, width), experts), powers, where=name)
