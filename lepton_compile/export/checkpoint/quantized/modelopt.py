"""What NVIDIA's Model Optimizer exports: FP8 and NVFP4.

    X.weight          F8_E4M3 (rows, columns), or U8 with two floats (E2M1) a byte
    X.weight_scale    one or (rows,) of FP8; F8_E4M3 (rows, columns / 16) of NVFP4
    X.weight_scale_2  what the scales of NVFP4 are multiplied by
    X.input_scale     of what the layer reads: not a weight's

Source: "unified Hugging Face checkpoint" of its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint

from .checkpoint import QuantizedCheckpoint, Weight
from .rows import EIGHT, SCALES, by_whole, nibbles, scaled, stored
from .settings import activations, unknown

__all__ = ["check_modelopt", "read_modelopt"]

ALGORITHMS = ("FP8", "NVFP4", "FP8_PER_CHANNEL_PER_TOKEN", "MIXED_PRECISION")


def check_modelopt(config: Mapping[str, Any]) -> None:
    """Refuse another algorithm. Raises SourceError."""
    inside = config.get("quantization")
    settings = inside if isinstance(inside, Mapping) else config
    if settings.get("quant_algo") not in ALGORITHMS:
        raise unknown("quant_algo", settings.get("quant_algo"), ALGORITHMS)


def read_modelopt(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``.

    Raises:
        SourceError: another algorithm, such as AWQ, which scales inputs too.
        CheckpointError: tensors of a layer that do not fit each other.
    """
    check_modelopt(config)
    known, weights = checkpoint.names(), {}
    for scale in known:
        name = scale.removesuffix("_scale")
        if name == scale or name not in known or not name.endswith(".weight"):
            continue
        scales, parts = stored(checkpoint, scale, SCALES), [name, scale]
        if (whole := f"{scale}_2") in known:
            scales, parts = by_whole(np.multiply, scales, checkpoint, whole), [*parts, whole]
        four = known[name].dtype == ir.DataType.UINT8
        codes = nibbles(checkpoint, name) if four else stored(checkpoint, name, EIGHT)
        weights[name] = Weight.of(name, scaled(codes, scales, where=name), parts)
    return QuantizedCheckpoint(checkpoint, weights, activations(known))
