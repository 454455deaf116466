"""The domain ``ai.lepton``: what standard ONNX cannot say, each op with a body in standard ops.

The bodies run on any runtime; they define the ops, and tests compare lowered graphs with them. A
body cannot ask which inputs it got: an op with one that may be left out has a second body, and all
nodes of a model agree on which. (Two under one name are overloads, which onnxruntime 1.32 does not
find in functions that functions call.)
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx.parser
import onnx_ir as ir

from lepton_compile.errors import ExportError
from lepton_passes.body import DIALECT as DOMAIN
from lepton_passes.body import LAYER_DOMAIN

from .experts_body import experts_body
from .states_body import CAUSAL_CONV, GATED, GATED_DELTA

__all__ = ["DOMAIN", "LAYER_DOMAIN", "OPSET", "functions"]

OPSET = 24

# Bias of keys that a query does not see: finite in fp16 too, so that a row with no key at all stays
# a number, and far beyond any score.
_HIDDEN = "-3.0e4"

# Which keys a query sees; `total` and `sequence` are (1,) int64, the mask is (batch, total) bool.
_IN_ORDER = """
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
"""

_AS_BIAS = f"""
    none = Constant <value_float: float = 0.0> ()
    hidden = Constant <value_float: float = {_HIDDEN}> ()
    wide_bias = Where (seen, none, hidden)
    bias = CastLike (wide_bias, query)
"""

_VISIBLE = f"""
    {_IN_ORDER}
    by_key = Unsqueeze (attention_mask, axes12)
    seen = And (by_key, by_index)
    {_AS_BIAS}
"""

_CACHED_ATTENTION = f"""
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

# A sink is one more key that every query sees: it scores nothing but its bias, and has no value.
_WITH_SINKS = """
    one1 = Constant <value_ints: ints = [1]> ()
    any1 = Constant <value_ints: ints = [-1]> ()
    axes023 = Constant <value_ints: ints = [0, 2, 3]> ()
    batch = Shape <start: int = 0, end: int = 1> (query)
    heads = Shape <start: int = 0, end: int = 1> (sinks)
    nothing = CastLike (none, query)
    key_shape = Shape (keys)
    value_shape = Shape (values)
    axis2 = Constant <value_ints: ints = [2]> ()
    key_row = ScatterElements <axis: int = 0> (key_shape, axis2, one1)
    value_row = ScatterElements <axis: int = 0> (value_shape, axis2, one1)
    sink_key = Expand (nothing, key_row)
    sink_value = Expand (nothing, value_row)
    all_keys = Concat <axis: int = 2> (keys, sink_key)
    all_values = Concat <axis: int = 2> (values, sink_value)
    bias_shape = Concat <axis: int = 0> (batch, heads, sequence, total)
    bias_of_heads = Expand (bias, bias_shape)
    sink_shape = Concat <axis: int = 0> (batch, heads, sequence, one1)
    sinks_4d = Unsqueeze (sinks, axes023)
    sinks_like = CastLike (sinks_4d, query)
    sink_bias = Expand (sinks_like, sink_shape)
    all_bias = Concat <axis: int = 3> (bias_of_heads, sink_bias)
    query_shape = Concat <axis: int = 0> (batch, sequence, heads, any1)
    query_4d = Reshape (query, query_shape)
    queries = Transpose <perm: ints = [0, 2, 1, 3]> (query_4d)
    seen_values = Attention <scale: float = @scale, softcap: float = @softcap>
        (queries, all_keys, all_values, all_bias)
    by_position = Transpose <perm: ints = [0, 2, 1, 3]> (seen_values)
    flat = Concat <axis: int = 0> (batch, sequence, any1)
    output = Reshape (by_position, flat)
"""

# New keys and values, (batch, sequence, heads * width), as (batch, heads, sequence, width).
_BY_HEAD = """
    kv_heads = Constant <value_int: int = @kv_num_heads> ()
    kv_heads1 = Unsqueeze (kv_heads, axis0)
    copied = Constant <value_ints: ints = [0, 0]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    kv_shape = Concat <axis: int = 0> (copied, kv_heads1, rest)
    key_4d = Reshape (key, kv_shape)
    value_4d = Reshape (value, kv_shape)
    new_keys = Transpose <perm: ints = [0, 2, 1, 3]> (key_4d)
    new_values = Transpose <perm: ints = [0, 2, 1, 3]> (value_4d)
"""

_CACHED_ATTENTION_SINKS = f"""
CachedAttention <q_num_heads, kv_num_heads, scale, softcap, causal, window>
    (query, key, value, attention_mask, past_key, past_value, sinks)
    => (output, present_key, present_value)
{{
    {_VISIBLE}
    {_BY_HEAD}
    present_key = Concat <axis: int = 2> (past_key, new_keys)
    present_value = Concat <axis: int = 2> (past_value, new_values)
    keys = Identity (present_key)
    values = Identity (present_value)
    {_WITH_SINKS}
}}
"""

_ATTENTION_SINKS = f"""
Attention <q_num_heads, kv_num_heads, scale, softcap, causal, window>
    (query, key, value, attention_mask, sinks) => (output)
{{
    {_VISIBLE}
    {_BY_HEAD}
    keys = Identity (new_keys)
    values = Identity (new_values)
    {_WITH_SINKS}
}}
"""

# The mask is marked (batch, total) int64: 0 is padding, and keys of one number from 2 on see each
# other, whatever their order: a picture's. A window is of keys that stand before a query.
_MARKED_ATTENTION = f"""
MarkedAttention <q_num_heads, kv_num_heads, scale, softcap, causal, window>
    (query, key, value, attention_mask, past_key, past_value)
    => (output, present_key, present_value)
{{
    {_IN_ORDER}
    axes1 = Constant <value_ints: ints = [1]> ()
    axis2 = Constant <value_ints: ints = [2]> ()
    begin = Unsqueeze (first, axis0)
    own = Slice (attention_mask, begin, total, axes1)
    own_3d = Unsqueeze (own, axis2)
    keys_3d = Unsqueeze (attention_mask, axis1)
    alike = Equal (own_3d, keys_3d)
    of_pictures = Greater (own_3d, one)
    together = And (alike, of_pictures)
    by_picture = Or (in_order, together)
    not_far = Less (distance, window_size)
    behind = Or (not_far, unlimited)
    in_sight = And (by_picture, behind)
    tokens = Greater (keys_3d, zero)
    seen_3d = And (tokens, in_sight)
    seen = Unsqueeze (seen_3d, axis1)
    {_AS_BIAS}
    output, present_key, present_value = Attention <
        q_num_heads: int = @q_num_heads, kv_num_heads: int = @kv_num_heads,
        scale: float = @scale, softcap: float = @softcap
    > (query, key, value, bias, past_key, past_value)
}}
"""

# A run of placeholders is a picture; they are among the new tokens, the last of the mask.
_MARKED_MASK = """
MarkedMask (attention_mask, input_ids, token) => (marked)
{
    one = Constant <value_int: int = 1> ()
    zeros = Constant <value_ints: ints = [0]> ()
    axis = Constant <value_ints: ints = [1]> ()
    here = Equal (input_ids, token)
    ones = Cast <to: int = 7> (here)
    shift = Constant <value_ints: ints = [0, 1, 0, 0]> ()
    later = Pad (ones, shift)
    sequence = Shape <start: int = 1, end: int = 2> (input_ids)
    before = Slice (later, zeros, sequence, axis)
    goes_on = Mul (ones, before)
    begins = Sub (ones, goes_on)
    number = CumSum (begins, one)
    new = Mul (ones, number)
    total = Shape <start: int = 1, end: int = 2> (attention_mask)
    past = Sub (total, sequence)
    room = Concat <axis: int = 0> (zeros, past, zeros, zeros)
    all = Pad (new, room)
    counted = Add (all, one)
    marked = Mul (attention_mask, counted)
}
"""

# Keys and values are the present of an earlier layer, (batch, heads, total, width).
_SHARED_ATTENTION = f"""
SharedAttention <q_num_heads, kv_num_heads, scale, softcap, causal, window>
    (query, keys, values, attention_mask) => (output)
{{
    {_VISIBLE}
    heads = Constant <value_int: int = @q_num_heads> ()
    heads1 = Unsqueeze (heads, axis0)
    copied = Constant <value_ints: ints = [0, 0]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    by_head = Concat <axis: int = 0> (copied, heads1, rest)
    query_4d = Reshape (query, by_head)
    queries = Transpose <perm: ints = [0, 2, 1, 3]> (query_4d)
    seen_values = Attention <scale: float = @scale, softcap: float = @softcap>
        (queries, keys, values, bias)
    by_position = Transpose <perm: ints = [0, 2, 1, 3]> (seen_values)
    flat = Concat <axis: int = 0> (copied, rest)
    output = Reshape (by_position, flat)
}}
"""

_POSITIONS = """
Positions (attention_mask, input_ids) => (positions)
{
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
}
"""

# The mask of new tokens; those that follow others are no padding, wherever rows are padded. How
# many there are before is counted in sums of ones: beside a GPU lengths of shapes lie on the host,
# and a step of a decoder that takes a number from there cannot be captured.
_NEW_MASK = """
NewMask (attention_mask, hidden) => (mask)
{
    axis = Constant <value_ints: ints = [1]> ()
    total = Shape <start: int = 1, end: int = 2> (attention_mask)
    sequence = Shape <start: int = 1, end: int = 2> (hidden)
    first = Sub (total, sequence)
    last = Slice (attention_mask, first, total, axis)
    all_ones = ConstantOfShape <value: tensor = int64[1] {1}> (total)
    new_ones = ConstantOfShape <value: tensor = int64[1] {1}> (sequence)
    count = ReduceSum (all_ones)
    new_count = ReduceSum (new_ones)
    before = Sub (count, new_count)
    known = Max (last, before)
    one = Constant <value_ints: ints = [1]> ()
    seen = Min (known, one)
    mask = CastLike (seen, hidden)
}
"""

# Each step reads the length of a shape, which lies on the host: beside a GPU all of them run there,
# and no step of a decoder waits for a number to come back.
_KEEP_LAST = """
KeepLast (hidden, count) => (kept)
{
    zeros = Constant <value_ints: ints = [0]> ()
    axis = Constant <value_ints: ints = [1]> ()
    sequence = Shape <start: int = 1, end: int = 2> (hidden)
    late = Sub (sequence, count)
    all = Equal (late, sequence)
    bounded = Max (late, zeros)
    first = Where (all, zeros, bounded)
    kept = Slice (hidden, first, sequence, axis)
}
"""

# Rows of pictures take the places of placeholder tokens, in order; where there are fewer rows, as
# where a model writes such a token itself, the others keep their own embeddings.
# (batch, sequence, width), (batch, sequence), (rows, width), ().
_PLACED = """
Placed (embeddings, input_ids, rows, token) => (output)
{
    zero = Constant <value_int: int = 0> ()
    last = Constant <value_ints: ints = [-1]> ()
    ahead = Constant <value_ints: ints = [1, 0, 0, 0]> ()
    here = Equal (input_ids, token)
    flat = Reshape (here, last)
    ones = Cast <to: int = 7> (flat)
    number = CumSum (ones, zero)
    count = Shape <start: int = 0, end: int = 1> (rows)
    known = LessOrEqual (number, count)
    placed = And (flat, known)
    index = Where (placed, number, zero)
    led = Pad (rows, ahead)
    taken = Gather (led, index)
    shape = Shape (embeddings)
    by_token = Reshape (taken, shape)
    two = Shape (input_ids)
    where = Reshape (placed, two)
    wide = Unsqueeze (where, last)
    output = Where (wide, by_token, embeddings)
}
"""

# Type and number of inputs -> body.
_BODIES = {
    ("CachedAttention", 6): _CACHED_ATTENTION,
    ("CachedAttention", 7): _CACHED_ATTENTION_SINKS,
    ("Attention", 4): _ATTENTION,
    ("Attention", 5): _ATTENTION_SINKS,
    ("CausalConvWithState", 3): CAUSAL_CONV,
    ("LinearAttention", 5): GATED,
    ("LinearAttention", 6): GATED_DELTA,
    ("MarkedAttention", 6): _MARKED_ATTENTION,
    ("MarkedMask", 3): _MARKED_MASK,
    ("NewMask", 2): _NEW_MASK,
    ("SharedAttention", 4): _SHARED_ATTENTION,
    ("Positions", 2): _POSITIONS,
    ("KeepLast", 2): _KEEP_LAST,
    ("Placed", 4): _PLACED,
}


def functions(nodes: Iterable[ir.Node]) -> list[ir.Function]:
    """Bodies of those of ``nodes`` that are of this domain, as new functions of a model.

    Raises:
        ExportError: two nodes of one type do not have the same inputs, or the same gate.
    """
    used = {_kind(node) for node in nodes if node.domain == DOMAIN}
    types = [op_type for op_type, *_ in sorted(used)]
    if twice := sorted({op_type for op_type in types if types.count(op_type) > 1}):
        raise ExportError(
            "some layers have an optional part, such as attention sinks, that others lack, or "
            "experts with another gate",
            found=", ".join(twice),
        )
    return [
        ir.serde.deserialize_function(onnx.parser.parse_function(_body(*each)))
        for each in sorted(used)
    ]


def _kind(node: ir.Node) -> tuple[str, int, str, int]:
    """What a body is chosen by: type, number of inputs, and the gate of experts."""
    given = node.attributes
    return (
        node.op_type,
        len(node.inputs),
        given.get_string("activation", ""),
        given.get_int("gated", 1),
    )


def _body(op_type: str, inputs: int, activation: str, gated: int) -> str:
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'
    if op_type == "Experts":
        return header + experts_body(activation, biased=inputs > 5, gated=gated == 1)
    return header + _BODIES[op_type, inputs]
