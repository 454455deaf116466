"""``ai.lepton::Experts`` in standard ops: one expert after the other, on the tokens that chose it.

    x (tokens, width); indices and shares (tokens, chosen): who of the experts, how much of each
    gate_up (experts * 2 inner, width), down (experts * width, inner): the experts' matrices, one
    under the other; biases, where there are some, (experts, 2 inner) and (experts, width)

    y = sum over the chosen e of share * (gated(x @ gate_up[e].T) @ down[e].T)
    gated: G = min(gate, limit); U = clip(up, -limit, limit); G * sigmoid(alpha * G) * (U + beta)

The rows of a ``gate_up`` are those of the gate and then those of up, or take turns where
``interleaved`` is 1. A ``limit`` of 0 is none. A token that is chosen twice by one expert, which no
router does, would count its shares together.
"""

from __future__ import annotations

__all__ = ["EXPERTS", "EXPERTS_BIASED"]

# The matrices as stacks, and where in a projection gate and up are.
_PREPARED = """
    axis0 = Constant <value_ints: ints = [0]> ()
    rest1 = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    count = Constant <value_int: int = @experts> ()
    count1 = Unsqueeze (count, axis0)
    width1 = Shape <start: int = 1, end: int = 2> (gate_up)
    inner1 = Shape <start: int = 1, end: int = 2> (down)
    gate_up_shape = Concat <axis: int = 0> (count1, rest1, width1)
    down_shape = Concat <axis: int = 0> (count1, rest1, inner1)
    gate_ups = Reshape (gate_up, gate_up_shape)
    downs = Reshape (down, down_shape)
    inner = Squeeze (inner1, axis0)
    turns = Constant <value_int: int = @interleaved> ()
    in_turns = Cast <to: int = 9> (turns)
    step = Add (turns, one)
    gap = Where (in_turns, one, inner)
    places = Range (zero, inner, one)
    gate_at = Mul (places, step)
    up_at = Add (gate_at, gap)
    no_float = Constant <value_float: float = 0.0> ()
    nothing = CastLike (no_float, x)
    alpha_float = Constant <value_float: float = @alpha> ()
    beta_float = Constant <value_float: float = @beta> ()
    limit_float = Constant <value_float: float = @limit> ()
    none_float = Constant <value_float: float = 3.0e38> ()
    limited = Greater (limit_float, no_float)
    bound_float = Where (limited, limit_float, none_float)
    factor = CastLike (alpha_float, x)
    more_up = CastLike (beta_float, x)
    bound = CastLike (bound_float, x)
    lower = Neg (bound)
    x_shape = Shape (x)
    start = Expand (nothing, x_shape)
"""

_LOOP = """
    always = Constant <value_int: int = 1> ()
    running = Cast <to: int = 9> (always)
    output = Loop (count, running, start) <body = expert
        (int64 e, bool go, float[tokens, width] before) => (bool on, float[tokens, width] after) {{
            on = Identity (go)
            chosen = Equal (indices, e)
            mine = Where (chosen, shares, nothing)
            axis1 = Constant <value_ints: ints = [1]> ()
            first = Constant <value_ints: ints = [0]> ()
            share = ReduceSum <keepdims: int = 1> (mine, axis1)
            chosen_int = Cast <to: int = 7> (chosen)
            times = ReduceSum <keepdims: int = 0> (chosen_int, axis1)
            found = NonZero (times)
            rows = Squeeze (found, first)
            some = Gather <axis: int = 0> (x, rows)
            some_share = Gather <axis: int = 0> (share, rows)
            matrix = Gather <axis: int = 0> (gate_ups, e)
            {projected}
            gate = Gather <axis: int = 1> (projected, gate_at)
            up = Gather <axis: int = 1> (projected, up_at)
            gate_low = Min (gate, bound)
            up_low = Min (up, bound)
            up_clipped = Max (up_low, lower)
            turned = Mul (gate_low, factor)
            open = Sigmoid (turned)
            swished = Mul (gate_low, open)
            up_more = Add (up_clipped, more_up)
            gated = Mul (swished, up_more)
            second = Gather <axis: int = 0> (downs, e)
            {returned}
            weighed = Mul (returned, some_share)
            at = Unsqueeze (rows, axis1)
            after = ScatterND <reduction: string = "add"> (before, at, weighed)
        }}>
"""

_HEAD = """
<domain: "ai.lepton", opset_import: ["" : 24]>
Experts <experts, chosen, alpha, beta, limit, interleaved> ({inputs}) => (output)
{{
{body}
}}
"""


def _body(inputs: str, projected: str, returned: str) -> str:
    loop = _LOOP.format(projected=projected, returned=returned)
    return _HEAD.format(inputs=inputs, body=_PREPARED + loop)


EXPERTS = _body(
    "x, indices, shares, gate_up, down",
    "projected = Gemm <transB: int = 1> (some, matrix)",
    "returned = Gemm <transB: int = 1> (gated, second)",
)
EXPERTS_BIASED = _body(
    "x, indices, shares, gate_up, down, gate_up_bias, down_bias",
    """bias = Gather <axis: int = 0> (gate_up_bias, e)
            projected = Gemm <transB: int = 1> (some, matrix, bias)""",
    """second_bias = Gather <axis: int = 0> (down_bias, e)
            returned = Gemm <transB: int = 1> (gated, second, second_bias)""",
)
