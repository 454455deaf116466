"""``ai.lepton::CausalConvWithState`` and ``ai.lepton::LinearAttention`` in standard ops.

    CausalConvWithState: x (batch, channels, sequence), weight (channels, 1, kernel), past and
    present (batch, channels, kernel - 1): the last inputs, from which the next run goes on

    LinearAttention: query and key (batch, sequence, heads * key width), value (batch, sequence,
    heads * value width), past and present (batch, heads, key width, value width); decay, in log
    space, (batch, sequence, heads) or one for each row of the state (batch, sequence,
    heads * key width); beta (batch, sequence, heads)

    S = exp(decay) * past;  S = S + beta * key (value - S' key)';  output = scale * S' query

token by token. Without beta S = S + key value'. What both do is what ONNX says of the ops of these
names from opset 27 on, and onnxruntime of its own; here keys have as many heads as values.
"""

from __future__ import annotations

__all__ = ["CAUSAL_CONV", "GATED", "GATED_DELTA"]

CAUSAL_CONV = """
CausalConvWithState <channels> (x, weight, past) => (y, present)
{
    axis = Constant <value_ints: ints = [2]> ()
    window = Concat <axis: int = 2> (past, x)
    y = Conv <group: int = @channels> (window, weight)
    start = Shape <start: int = 2, end: int = 3> (x)
    end = Shape <start: int = 2, end: int = 3> (window)
    present = Slice (window, start, end, axis)
}
"""

# What goes through the scan, by head: (batch, sequence, heads, width).
_BY_HEAD = """
    axis0 = Constant <value_ints: ints = [0]> ()
    copied = Constant <value_ints: ints = [0, 0]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    heads = Constant <value_int: int = @kv_num_heads> ()
    heads1 = Unsqueeze (heads, axis0)
    by_head = Concat <axis: int = 0> (copied, heads1, rest)
    scale_float = Constant <value_float: float = @scale> ()
    factor = CastLike (scale_float, query)
    scaled = Mul (query, factor)
    queries = Reshape (scaled, by_head)
    keys = Reshape (key, by_head)
    values = Reshape (value, by_head)
    decay_by_head = Reshape (decay, by_head)
    kept = Exp (decay_by_head)
"""

_STEP = """
        last_axis = Constant <value_ints: ints = [-1]> ()
        row_axis = Constant <value_ints: ints = [-2]> ()
        k_column = Unsqueeze (k, last_axis)
        q_row = Unsqueeze (q, row_axis)
        v_row = Unsqueeze (v, row_axis)
        keep_column = Unsqueeze (keep, last_axis)
        decayed = Mul (state, keep_column)
"""

_OUT = """
        change = MatMul (k_column, written)
        next = Add (decayed, change)
        out_row = MatMul (q_row, next)
        out = Squeeze (out_row, row_axis)
"""

_AFTER = """
    flat = Constant <value_ints: ints = [0, 0, -1]> ()
    output = Reshape (outputs, flat)
"""

GATED = f"""
LinearAttention <q_num_heads, kv_num_heads, scale>
    (query, key, value, past, decay) => (output, present)
{{
    {_BY_HEAD}
    present, outputs = Scan <num_scan_inputs: int = 4, scan_input_axes: ints = [1, 1, 1, 1],
        scan_output_axes: ints = [1], body: graph = token
        (state, q, k, v, keep) => (next, out)
    {{
        {_STEP}
        written = Identity (v_row)
        {_OUT}
    }}> (past, queries, keys, values, kept)
    {_AFTER}
}}
"""

GATED_DELTA = f"""
LinearAttention <q_num_heads, kv_num_heads, scale>
    (query, key, value, past, decay, beta) => (output, present)
{{
    {_BY_HEAD}
    rates = Reshape (beta, by_head)
    present, outputs = Scan <num_scan_inputs: int = 5, scan_input_axes: ints = [1, 1, 1, 1, 1],
        scan_output_axes: ints = [1], body: graph = token
        (state, q, k, v, keep, rate) => (next, out)
    {{
        {_STEP}
        k_row = Unsqueeze (k, row_axis)
        known = MatMul (k_row, decayed)
        wrong = Sub (v_row, known)
        rate_row = Unsqueeze (rate, last_axis)
        written = Mul (wrong, rate_row)
        {_OUT}
    }}> (past, queries, keys, values, kept, rates)
    {_AFTER}
}}
"""
