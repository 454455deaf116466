"""Keep keys and values in halves, where nothing but our own attention reads them.

    Before   past_key_values.* and present.* fp32, GroupQueryAttention(.., past_key, past_value, ..)
    After    the same fp16

What a cache holds is read again for each token that is written: of a model of Qwen3 0.6B's shape it
is as much as its weights of 4 bits from 1,000 tokens on. Halves take half of that, and half of the
memory; what they lose is far less than layers lose that round what they read to 8 bits. A number
beyond their range becomes the largest one.
Refuses: caches of an ONNX file, whose callers hold them as it says; a cache that something else
than our attention reads or makes; heads of more than 1,024.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.contract import ROUNDING
from lepton_passes.lowering.ort._kept_caches import WIDEST, CachePass

__all__ = ["LowerHalfCache"]

HALF = ir.DataType.FLOAT16


class LowerHalfCache(CachePass):
    """Keep keys and values in halves."""

    name = "lower-half-cache"
    summary = "KV caches of our own attention in fp16"
    changes_numbers = True
    kept = HALF
    tolerances = dict.fromkeys(("fp32", "int8", "int4"), ROUNDING[HALF])

    def lacks(self, width: int | None) -> str | None:
        if width is None or width > WIDEST:
            return f"heads are wider than {WIDEST}, or nobody knows how wide"
        return None
