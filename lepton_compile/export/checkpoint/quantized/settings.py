"""What config.json says of a quantization, and the tensors of it that are no weight's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

from lepton_compile.errors import CheckpointError, SourceError

__all__ = ["BITS", "activations", "bits_of", "block_of", "check_type", "unfit", "unknown"]

# Scales of what layers read and write, and of the cache: numbers of an engine, not of a model.
_ACTIVATIONS = re.compile(
    r"\.((input|output|activation)_(scale|scale_inv|zero_point|global_scale)|input_scale_ub"
    r"|[kv]_(scale|zero_point)|kv_cache_scheme)$"
)
BITS = (4, 8)
"""Of integers that are read."""


def activations(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are about activations."""
    return [name for name in names if _ACTIVATIONS.search(name)]


def block_of(size: Any) -> tuple[int, int] | None:
    """Rows and columns that share a scale, as a list of two says it; None where none does."""
    if size is None:
        return None
    if isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size):
        return size[0], size[1]
    raise unknown("size of a block", size, ["two numbers, such as [128, 128]"])


def bits_of(bits: Any) -> int:
    """Bits of an integer. Raises SourceError for others than 4 and 8."""
    if type(bits) is int and bits in BITS:
        return bits
    raise unknown("number of bits", bits, [str(each) for each in BITS])


def check_type(name: str, found: ir.DataType, kinds: Iterable[ir.DataType]) -> None:
    """Refuse a tensor that has other elements: they are no codes, or no scales."""
    if found not in kinds:
        raise unfit(name, f"elements of {found.name}", [kind.name for kind in kinds])


def unknown(what: str, found: Any, available: Iterable[str]) -> SourceError:
    """The error for a way of quantizing that is not read."""
    return SourceError(
        f"The weights are quantized in a way that is not read: {what}.",
        where="quantization_config of config.json",
        found=f"{found!s:.80}",
        available=list(available),
        hint="Compile the model that was quantized, and name the precision under `quantize`.",
    )


def unfit(where: str, found: str, available: Iterable[str] = ()) -> CheckpointError:
    """The error for tensors of one weight that do not belong together."""
    return CheckpointError(
        "The tensors of a quantized weight do not fit each other.",
        where=where,
        found=found,
        available=list(available),
        hint="Download the checkpoint again, or compile the model that was quantized.",
    )
