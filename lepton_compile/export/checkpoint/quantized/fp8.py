"""Floats of 8 bits with a scale for each block, row or matrix (DeepSeek-V3, section 3.3.2; Qwen3,
Mistral and others publish their models so).

    X.weight            F8_E4M3 (rows, columns), or a stack of such matrices
    X.weight_scale_inv  what to multiply by, whatever the name says: (rows / 128, columns / 128), or
                        a scalar
    X.activation_scale  of what the layer reads: not a weight's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_compile.export.checkpoint.base import Checkpoint

from .checkpoint import QuantizedCheckpoint, Weight
from .rows import EIGHT, SCALES, scaled, stored
from .settings import activations, block_of

__all__ = ["check_fp8", "read_fp8"]


def check_fp8(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The rows and columns that share a scale. Raises SourceError."""
    return block_of(config.get("weight_block_size"))


def read_fp8(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``. Raises CheckpointError."""
    suffix, block = "_scale_inv", check_fp8(config)
    if config.get("quant_method") == "fbgemm_fp8":
        suffix = "_scale"
    known, weights = checkpoint.names(), {}
    for scale in known:
        name = scale.removesuffix(suffix)
        if name == scale or name not in known:
            continue
        codes, scales = stored(checkpoint, name, EIGHT), stored(checkpoint, scale, SCALES)
        rows = scaled(codes, scales, where=name, block=block)
        weights[name] = Weight.of(name, rows, (name, scale))
    return QuantizedCheckpoint(checkpoint, weights, activations(known))
