"""Keep keys and values in bytes with scales, where nothing but our own attention reads them.

    Before   past_key_values.* and present.* fp32 (.., head_dim), GroupQueryAttention(..)
    After    the same int8 (.., head_dim + head_dim / 16): bytes of a head, then scales in fp16

`quantize: {cache: int8}` asks for it: a cache of halves takes 1.9 times as much memory, and as much
longer to read where memory is what a token waits for. 32 numbers share a scale, as in Q8_0 of
llama.cpp; they are rounded as they come, and no sample is run.
Refuses, and the build fails: caches of an ONNX file, whose callers hold them as it says; a cache
that something else than our attention reads or makes; heads of more than 1,024, or whose width is
no multiple of 32.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.contract import Tolerance
from lepton_passes.lowering.ort._kept_caches import WIDEST, CachePass

__all__ = ["SHARE", "LowerByteCache"]

SHARE = 32  # numbers that share a scale; csrc/bytes.h has it, too


class LowerByteCache(CachePass):
    """Keep keys and values in bytes."""

    name = "lower-byte-cache"
    summary = "KV caches of our own attention in int8, scales for each 32 numbers"
    changes_numbers = True
    counts_as = "cache-format"
    must_not_refuse = True
    kept = ir.DataType.INT8
    tolerances = dict.fromkeys(("fp32", "int8", "int4"), Tolerance(error=0.1, cosine=0.99))

    def lacks(self, width: int | None) -> str | None:
        if width is None or width > WIDEST or width % SHARE:
            return f"heads are no multiple of {SHARE} up to {WIDEST} wide: {width or 'unknown'}"
        return None

    def row(self, width: int) -> int:
        return width + width // SHARE * 2
