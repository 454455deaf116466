"""``ai.lepton::Experts`` in standard ops: the chosen experts one by one, on the tokens they are of.

    x (tokens, width); indices and shares (tokens, chosen): which experts, and how much of each
    gate_up (experts * 2 inner, width), down (experts * width, inner): the experts' matrices, one
    under the other; biases, where there are some, (experts, 2 inner) and (experts, width)

    y = sum over the chosen e of share * (gated(x @ gate_up[e].T) @ down[e].T)
    gated: G = min(gate, limit); U = clip(up, -limit, limit); f(G) * (U + beta)

What f is the attribute ``activation`` says: ``swish``, G * sigmoid(alpha * G), or one of Gelu, Gelu
by tanh, Relu and its square. Nothing in ONNX chooses by a string, so that each has a body of its
own; and so have experts that are not ``gated``, where gate_up is up alone (experts * inner, width)
and f(up) is all.

The rows of a ``gate_up`` are those of the gate and then those of up, or take turns where
``interleaved`` is 1. A ``limit`` of 0 is none. A token that is chosen twice by one expert, which no
router does, would count its shares together.
"""

from __future__ import annotations

__all__ = ["experts_body"]

# The matrices as stacks, and where in a projection gate and up are.
_PREPARED = """
    axis0 = Constant <value_ints: ints = [0]> ()
    rest1 = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    all = Constant <value_int: int = @experts> ()
    count1 = Unsqueeze (all, axis0)
    choices = Reshape (indices, rest1)
    hit = Unique <sorted: int = 1> (choices)
    count = Size (hit)
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
        (int64 i, bool go, float[tokens, width] before) => (bool on, float[tokens, width] after) {{
            on = Identity (go)
            e = Gather <axis: int = 0> (hit, i)
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
            {gated}
            second = Gather <axis: int = 0> (downs, e)
            {returned}
            weighed = Mul (returned, some_share)
            at = Unsqueeze (rows, axis1)
            after = ScatterND <reduction: string = "add"> (before, at, weighed)
        }}>
"""

_HEAD = """
Experts <experts, chosen, alpha, beta, limit, interleaved, activation, gated> ({inputs}) => (output)
{{
{body}
}}
"""


_ACTIVATED = {
    "swish": """turned = Mul (gate_low, factor)
            open = Sigmoid (turned)
            activated = Mul (gate_low, open)""",
    "gelu": "activated = Gelu (gate_low)",
    "gelu_tanh": 'activated = Gelu <approximate: string = "tanh"> (gate_low)',
    "relu": "activated = Relu (gate_low)",
    "relu2": """positive = Relu (gate_low)
            activated = Mul (positive, positive)""",
}

_GATED = """gate = Gather <axis: int = 1> (projected, gate_at)
            up = Gather <axis: int = 1> (projected, up_at)
            gate_low = Min (gate, bound)
            up_low = Min (up, bound)
            up_clipped = Max (up_low, lower)
            {activated}
            up_more = Add (up_clipped, more_up)
            gated = Mul (activated, up_more)"""
_UNGATED = """gate_low = Identity (projected)
            {activated}
            gated = Identity (activated)"""

_INPUTS = "x, indices, shares, gate_up, down"
_PROJECTED = "projected = Gemm <transB: int = 1> (some, matrix)"
_RETURNED = "returned = Gemm <transB: int = 1> (gated, second)"
_BIASED_INPUTS = f"{_INPUTS}, gate_up_bias, down_bias"
_BIASED_PROJECTED = """bias = Gather <axis: int = 0> (gate_up_bias, e)
            projected = Gemm <transB: int = 1> (some, matrix, bias)"""
_BIASED_RETURNED = """second_bias = Gather <axis: int = 0> (down_bias, e)
            returned = Gemm <transB: int = 1> (gated, second, second_bias)"""


def experts_body(activation: str, *, biased: bool, gated: bool) -> str:
    """The function of nodes with this ``activation``, as text."""
    inputs, projected, returned = (
        (_BIASED_INPUTS, _BIASED_PROJECTED, _BIASED_RETURNED)
        if biased
        else (_INPUTS, _PROJECTED, _RETURNED)
    )
    how = (_GATED if gated else _UNGATED).format(activated=_ACTIVATED[activation])
    loop = _LOOP.format(projected=projected, gated=how, returned=returned)
    return _HEAD.format(inputs=inputs, body=_PREPARED + loop)
