"""The domain ``ai.lepton``: what standard ONNX cannot say, each op with a body in standard ops.

The bodies run on any runtime; they define the ops, and tests compare lowered graphs with them.
"""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir

__all__ = ["DOMAIN", "LAYER_DOMAIN", "OPSET", "functions"]

DOMAIN = "ai.lepton"
LAYER_DOMAIN = "ai.lepton.layer"
OPSET = 24

# Bias of keys that a query does not see: finite in fp16 too, so that a row with no key at all stays
# a number, and far beyond any score.
_HIDDEN = "-3.0e4"

# Which keys a query sees; `total` and `sequence` are (1,) int64, the mask is (batch, total) bool.
_VISIBLE = f"""
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    axis0 = Constant <value_ints: ints = [0]> ()
    axis1 = Constant <value_ints: ints = [1]> ()
    axes12 = Constant <value_ints: ints = [1, 2]> ()
    total = Shape <start: int = 1, end: int = 2> (attention_mask)
    sequence = Shape <start: int = 1, end: int = 2> (query)
    last = Squeeze (total, axis0)
    new = Squeeze (sequence, axis0)
    first = Sub (last, new)
    rows = Range (first, last, one)
    columns = Range (zero, last, one)
    rows_2d = Unsqueeze (rows, axis1)
    distance = Sub (rows_2d, columns)
    causal_flag = Constant <value_int: int = @causal> ()
    not_causal = Equal (causal_flag, zero)
    not_future = GreaterOrEqual (distance, zero)
    in_order = Or (not_future, not_causal)
    window_size = Constant <value_int: int = @window> ()
    unlimited = Less (window_size, zero)
    span = Abs (distance)
    near = Less (span, window_size)
    in_window = Or (near, unlimited)
    by_index = And (in_order, in_window)
    by_key = Unsqueeze (attention_mask, axes12)
    seen = And (by_key, by_index)
    none = Constant <value_float: float = 0.0> ()
    hidden = Constant <value_float: float = {_HIDDEN}> ()
    wide_bias = Where (seen, none, hidden)
    bias = CastLike (wide_bias, query)
"""

_CACHED_ATTENTION = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
CachedAttention <q_num_heads, kv_num_heads, scale, softcap, causal, window>
    (query, key, value, attention_mask, past_key, past_value)
    => (output, present_key, present_value)
{{
    {_VISIBLE}
    output, present_key, present_value = Attention <
        q_num_heads: int = @q_num_heads, kv_num_heads: int = @kv_num_heads,
        scale: float = @scale, softcap: float = @softcap
    > (query, key, value, bias, past_key, past_value)
}}
"""

_ATTENTION = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
Attention <q_num_heads, kv_num_heads, scale, softcap, causal, window>
    (query, key, value, attention_mask) => (output)
{{
    {_VISIBLE}
    output = Attention <
        q_num_heads: int = @q_num_heads, kv_num_heads: int = @kv_num_heads,
        scale: float = @scale, softcap: float = @softcap
    > (query, key, value, bias)
}}
"""

_POSITIONS = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
Positions (attention_mask, input_ids) => (positions)
{{
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    axis = Constant <value_ints: ints = [1]> ()
    total = Shape <start: int = 1, end: int = 2> (attention_mask)
    sequence = Shape <start: int = 1, end: int = 2> (input_ids)
    first = Sub (total, sequence)
    seen = CumSum (attention_mask, one)
    index = Sub (seen, one)
    known = Max (index, zero)
    positions = Slice (known, first, total, axis)
}}
"""

_KEEP_LAST = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
KeepLast (hidden, count) => (kept)
{{
    zeros = Constant <value_ints: ints = [0]> ()
    axis = Constant <value_ints: ints = [1]> ()
    sequence = Shape <start: int = 1, end: int = 2> (hidden)
    wanted = Reshape (count, axis)
    all = Equal (wanted, zeros)
    late = Sub (sequence, wanted)
    bounded = Max (late, zeros)
    first = Where (all, zeros, bounded)
    kept = Slice (hidden, first, sequence, axis)
}}
"""


_BODIES = {
    "CachedAttention": _CACHED_ATTENTION,
    "Attention": _ATTENTION,
    "Positions": _POSITIONS,
    "KeepLast": _KEEP_LAST,
}


def functions(used: set[str]) -> list[ir.Function]:
    """Bodies of the ops in ``used``, as new functions of a model."""
    return [
        ir.serde.deserialize_function(onnx.parser.parse_function(_BODIES[name]))
        for name in sorted(used)
    ]
