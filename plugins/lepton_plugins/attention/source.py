"""What Triton is given: for each kernel its parameter types and the values compiled in."""

from __future__ import annotations

import math
from typing import Any

from lepton_plugins.attention.launch import arguments
from lepton_plugins.attention.tiles import Tiles, head_chunks
from lepton_plugins.attention.variant import Variant

__all__ = ["TRITON_TYPES", "constants", "parameter_types"]

TRITON_TYPES = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "int32": "i32",
    "int8": "i8",
    "float8_e4m3fn": "fp8e4nv",
}

_SCALARS = ("sequence", "capacity", "splits")
_FLOAT32 = ("sinks", "partial", "partial_lse")
_CACHES = ("key_cache", "value_cache", "present_key", "present_value")
_LOG2_E = math.log2(math.e)

# The constants that each kernel declares, besides ``sinks`` where there are none.
_DECLARED = {
    "append": ("KV_HEADS", "HEAD_DIM", "WIDTH", "KEY_INVERSE", "VALUE_INVERSE", "BLOCK_M"),
    "prefill": (
        *("KV_HEADS", "GROUP", "HEAD_DIM", "D0", "D1", "SCORE_SCALE", "CAP_SCALE", "WINDOW"),
        *("VALUE_SCALE", "BLOCK_M", "BLOCK_N"),
    ),
    "decode": (
        *("KV_HEADS", "GROUP", "HEAD_DIM", "D0", "D1", "SCORE_SCALE", "CAP_SCALE", "WINDOW"),
        *("KEY_INVERSE", "VALUE_INVERSE", "VALUE_SCALE", "BLOCK_M", "BLOCK_N"),
    ),
    "combine": ("KV_HEADS", "GROUP", "HEAD_DIM", "WIDTH", "BLOCK_N"),
}


def parameter_types(kernel: str, variant: Variant) -> dict[str, str]:
    """Triton's type of each run-time argument, in order, as in ``*bf16`` or ``i32``."""
    return {name: _type_of(name, variant) for name in arguments(kernel, variant)}


def constants(kernel: str, variant: Variant, tiles: Tiles) -> dict[str, Any]:
    """The compile-time arguments of ``kernel``; scores are in base 2."""
    first, second = head_chunks(variant.head_dim)
    score = variant.scale * variant.key_scale
    capped = variant.softcap > 0
    known: dict[str, Any] = {
        "KV_HEADS": variant.kv_num_heads,
        "GROUP": variant.group,
        "HEAD_DIM": variant.head_dim,
        "WIDTH": 2 * first if second else first,
        "D0": first,
        "D1": second,
        "SCORE_SCALE": (variant.softcap if capped else score) * _LOG2_E,
        "CAP_SCALE": score / variant.softcap if capped else 0.0,
        "WINDOW": max(variant.window, 0),
        "KEY_INVERSE": 1.0 / variant.key_scale,
        "VALUE_INVERSE": 1.0 / variant.value_scale,
        "VALUE_SCALE": variant.value_scale,
        "BLOCK_M": tiles.block_m,
        "BLOCK_N": tiles.block_n,
    }
    values = {name: known[name] for name in _DECLARED[kernel]}
    absent = kernel in ("prefill", "combine") and not variant.sinks
    return values | ({"sinks": None} if absent else {})


def _type_of(name: str, variant: Variant) -> str:
    if name in _SCALARS:
        return "i32"
    if name == "past_lengths":
        return "*i32"
    if name in _FLOAT32:
        return "*fp32"
    return "*" + TRITON_TYPES[variant.cache_dtype if name in _CACHES else variant.dtype]
