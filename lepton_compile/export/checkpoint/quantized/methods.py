"""Which way a checkpoint is quantized, by what its configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lepton_compile.export.checkpoint.base import Checkpoint

from .awq import read_awq
from .checkpoint import QuantizedCheckpoint
from .compressed import read_compressed
from .fp8 import read_fp8
from .gptq import read_gptq
from .modelopt import read_modelopt
from .mxfp4 import read_mxfp4
from .settings import unknown

__all__ = ["METHODS", "method_of", "read_quantized"]

METHODS: dict[str, Callable[[Checkpoint, Mapping[str, Any]], QuantizedCheckpoint]] = {
    "awq": read_awq,
    "compressed-tensors": read_compressed,
    "fbgemm_fp8": read_fp8,
    "fp8": read_fp8,
    "gptq": read_gptq,
    "modelopt": read_modelopt,
    "mxfp4": read_mxfp4,
}


def method_of(config: Mapping[str, Any]) -> str:
    """The name of the method. Raises SourceError for one that is not read."""
    method, producer = config.get("quant_method"), config.get("producer")
    if not method and isinstance(producer, Mapping):
        method = producer.get("name")
    if not isinstance(method, str) or method not in METHODS:
        raise unknown("quant_method", method, METHODS)
    return method


def read_quantized(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of a checkpoint that ``config`` says the quantization of.

    Raises:
        SourceError: a way of quantizing that is not read.
        CheckpointError: tensors that do not fit each other.
    """
    return METHODS[method_of(config)](checkpoint, config)
