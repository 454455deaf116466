"""Which way a checkpoint is quantized, by what its configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.base import Checkpoint

from .awq import check_awq, read_awq
from .checkpoint import QuantizedCheckpoint
from .compressed import check_compressed, read_compressed
from .fp8 import check_fp8, read_fp8
from .gptq import check_gptq, read_gptq
from .modelopt import check_modelopt, read_modelopt
from .mxfp4 import read_mxfp4
from .settings import unknown

__all__ = ["METHODS", "check_settings", "method_of", "read_quantized"]


@dataclass(frozen=True)
class _Method:
    """How what is said of it is looked at, and how a checkpoint is read."""

    check: Callable[[Mapping[str, Any]], object]
    read: Callable[[Checkpoint, Mapping[str, Any]], QuantizedCheckpoint]


METHODS = {
    "awq": _Method(check_awq, read_awq),
    "compressed-tensors": _Method(check_compressed, read_compressed),
    "fbgemm_fp8": _Method(check_fp8, read_fp8),
    "fp8": _Method(check_fp8, read_fp8),
    "gptq": _Method(check_gptq, read_gptq),
    "modelopt": _Method(check_modelopt, read_modelopt),
    "mxfp4": _Method(lambda config: None, read_mxfp4),
}


def method_of(config: Mapping[str, Any]) -> str:
    """The name of the method. Raises SourceError for one that is not read."""
    method, producer = config.get("quant_method"), config.get("producer")
    if not method and isinstance(producer, Mapping):
        method = producer.get("name")
    if not isinstance(method, str) or method not in METHODS:
        raise unknown("quant_method", method, METHODS)
    return method


def check_settings(config: Mapping[str, Any], place: str) -> None:
    """Refuse what no weight is needed to see.

    Args:
        place: where it is said, for messages.

    Raises:
        SourceError: a way of quantizing that is not read.
    """
    try:
        METHODS[method_of(config)].check(config)
    except SourceError as error:
        error.where = place
        raise


def read_quantized(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of a checkpoint that ``config`` says the quantization of.

    Raises:
        SourceError: a way of quantizing that is not read.
        CheckpointError: tensors that do not fit each other.
    """
    return METHODS[method_of(config)].read(checkpoint, config)
