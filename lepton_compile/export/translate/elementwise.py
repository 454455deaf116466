"""Elementwise arithmetic, comparisons and activations."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from .core import DTYPES, Handler, Translator

__all__ = ["HANDLERS"]


def _same(t: Translator, node: fx.Node) -> Any:
    return t.value(node.args[0]) if not t.is_weight(node.args[0]) else t.get(node.args[0])


def _unary(op_type: str) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        if len(node.args) > 1 or node.kwargs:  # such as how many decimals to round to
            raise ValueError("with more than its input")
        return t.builder.op(op_type, [t.value(node.args[0])], at=t.path(node))

    return handler


def _binary(op_type: str, *, compare: bool = False, reverse: bool = False) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        dtype = _common(node.args[:2]) if compare else node.meta["val"].dtype
        pair = [_typed(t, argument, dtype) for argument in node.args[:2]]
        pair = pair[::-1] if reverse else pair
        alpha = t.arg(node, 2, "alpha", 1)
        if alpha != 1:
            pair[1] = t.builder.op("Mul", [pair[1], t.value(alpha, node)])
        if dtype != torch.bfloat16:
            return t.builder.op(op_type, pair, at=t.path(node))
        # No runtime computes in bfloat16 on the CPU: the same in fp32, rounded once.
        wide = [t.builder.op("Cast", [v], {"to": ir.DataType.FLOAT.value}) for v in pair]
        result = t.builder.op(op_type, wide, at=t.path(node))
        if compare:
            return result
        return t.builder.op("Cast", [result], {"to": ir.DataType.BFLOAT16.value})

    return handler


def _common(arguments: Any) -> torch.dtype:
    values = [a.meta["val"] if isinstance(a, fx.Node) else a for a in arguments]
    values = [int(v.node.hint) if isinstance(v, torch.SymInt) else v for v in values]
    return torch.result_type(*values)


def _typed(t: Translator, argument: Any, dtype: torch.dtype) -> ir.Value:
    """An operand in the type torch promotes to."""
    found = t.get(argument)
    if isinstance(found, bool | int | float):
        return t.builder.constant(torch.tensor(found, dtype=dtype).numpy())
    value = t.value(argument)
    meta = argument.meta["val"]
    if isinstance(meta, torch.SymInt):
        value = t.builder.op("Squeeze", [t.size(meta), t.builder.ints(0)])
    if isinstance(meta, Tensor) and meta.dtype == dtype:
        return value
    return t.builder.op("Cast", [value], {"to": DTYPES[dtype].value})


def _division(t: Translator, node: fx.Node) -> ir.Value:
    floors = str(node.target).startswith("aten.floor_divide")
    mode = "floor" if floors else node.kwargs.get("rounding_mode")
    whole = not node.meta["val"].dtype.is_floating_point
    if mode == "floor" and whole:  # Div rounds towards zero
        left, right = (_typed(t, argument, node.meta["val"].dtype) for argument in node.args[:2])
        least = t.builder.op("Sub", [left, t.builder.op("Mod", [left, right])])
        return t.builder.op("Div", [least, right], at=t.path(node))
    quotient: ir.Value = _binary("Div")(t, node)
    if mode is None or whole:
        return quotient
    if mode == "floor":
        return t.builder.op("Floor", [quotient])
    return t.builder.op(
        "Mul",
        [
            t.builder.op("Sign", [quotient]),
            t.builder.op("Floor", [t.builder.op("Abs", [quotient])]),
        ],
    )


def _remainder(t: Translator, node: fx.Node) -> ir.Value:
    """Of the sign of what it is divided by. Before opset 28 Mod does that with integers alone."""
    dtype = node.meta["val"].dtype
    left, right = (_typed(t, argument, dtype) for argument in node.args[:2])
    if not dtype.is_floating_point:
        return t.builder.op("Mod", [left, right], at=t.path(node))
    times = t.builder.op("Floor", [t.builder.op("Div", [left, right])])
    return t.builder.op("Sub", [left, t.builder.op("Mul", [times, right])], at=t.path(node))


def _cast(t: Translator, node: fx.Node) -> Any:
    source, target = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
    if source == target:
        return _same(t, node)
    return t.builder.op(
        "Cast", [t.value(node.args[0])], {"to": DTYPES[target].value}, at=t.path(node)
    )


def _gelu(t: Translator, node: fx.Node) -> ir.Value:
    approximate = t.arg(node, 1, "approximate", "none")
    return t.builder.op(
        "Gelu", [t.value(node.args[0])], {"approximate": approximate}, at=t.path(node)
    )


def _silu(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    gate = t.builder.op("Sigmoid", [x], at=t.path(node))
    gate.type, gate.shape = x.type, x.shape
    return t.builder.op("Mul", [x, gate], at=t.path(node))


def _rsqrt(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op(
        "Reciprocal", [t.builder.op("Sqrt", [t.value(node.args[0])])], at=t.path(node)
    )


def _clamp(t: Translator, node: fx.Node) -> ir.Value:
    result = t.value(node.args[0])
    for index, name, op_type in ((1, "min", "Max"), (2, "max", "Min")):
        bound = t.arg(node, index, name)
        if bound is not None:
            result = t.builder.op(op_type, [result, _typed(t, bound, node.meta["val"].dtype)])
    return result


def _where(t: Translator, node: fx.Node) -> ir.Value:
    dtype = node.meta["val"].dtype
    chosen, other = (_typed(t, argument, dtype) for argument in node.args[1:3])
    return t.builder.op("Where", [t.value(node.args[0]), chosen, other], at=t.path(node))


def _masked_fill(t: Translator, node: fx.Node) -> ir.Value:
    fill = _typed(t, node.args[2], node.meta["val"].dtype)
    return t.builder.op(
        "Where", [t.value(node.args[1]), fill, t.value(node.args[0])], at=t.path(node)
    )


def _bitwise(op_type: str) -> Handler:
    """Boolean tensors use the logical op; integers the bitwise one."""

    def handler(t: Translator, node: fx.Node) -> ir.Value:
        boolean = node.meta["val"].dtype == torch.bool
        values = [
            _typed(t, a, node.meta["val"].dtype) for a in node.args[: 1 if op_type == "Not" else 2]
        ]
        return t.builder.op(op_type if boolean else f"Bitwise{op_type}", values, at=t.path(node))

    return handler


def _not_equal(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op("Not", [_binary("Equal", compare=True)(t, node)])


def _elu(t: Translator, node: fx.Node) -> ir.Value:
    if len(node.args) > 2:
        raise ValueError("with scales")
    alpha = {"alpha": float(t.arg(node, 1, "alpha", 1.0))}
    return t.builder.op("Elu", [t.value(node.args[0])], alpha, at=t.path(node))


def _softplus(t: Translator, node: fx.Node) -> ir.Value:
    """``log(1 + exp(beta x)) / beta``."""
    x, beta = t.value(node.args[0]), t.arg(node, 1, "beta", 1)
    if beta == 1:
        return t.builder.op("Softplus", [x], at=t.path(node))
    steep = t.builder.op("Softplus", [t.builder.op("Mul", [x, t.value(beta, node)])])
    return t.builder.op("Div", [steep, t.value(beta, node)], at=t.path(node))


def _log_sigmoid(t: Translator, node: fx.Node) -> ir.Value:
    negative = t.builder.op("Neg", [t.value(node.args[0])])
    return t.builder.op("Neg", [t.builder.op("Softplus", [negative])], at=t.path(node))


def _log1p(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    return t.builder.op("Log", [t.builder.op("Add", [x, t.value(1.0, node)])])


def _expm1(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    return t.builder.op("Sub", [t.builder.op("Exp", [x]), t.value(1.0, node)], at=t.path(node))


def _square(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    return t.builder.op("Mul", [x, x], at=t.path(node))


def _leaky_relu(t: Translator, node: fx.Node) -> ir.Value:
    slope = float(t.arg(node, 1, "negative_slope", 0.01))
    return t.builder.op("LeakyRelu", [t.value(node.args[0])], {"alpha": slope}, at=t.path(node))


# Of the error function's inverse by x: polynomials of w = -log(1 - x^2), for w below 5 and beyond.
# Giles, Approximating the erfinv function, GPU Computing Gems (Jade Edition), 2011.
_MIDDLE = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


def _erfinv(t: Translator, node: fx.Node) -> ir.Value:
    def op(name: str, *given: ir.Value | float) -> ir.Value:
        values = [each if isinstance(each, ir.Value) else t.value(each, node) for each in given]
        return t.builder.op(name, values, at=t.path(node))

    def polynomial(factors: tuple[float, ...], w: ir.Value) -> ir.Value:
        found = op("Mul", w, factors[0])
        for factor in factors[1:-1]:
            found = op("Mul", op("Add", found, factor), w)
        return op("Add", found, factors[-1])

    x = t.value(node.args[0])
    w = op("Neg", op("Log", op("Mul", op("Sub", 1.0, x), op("Add", x, 1.0))))
    middle = polynomial(_MIDDLE, op("Sub", w, 2.5))
    tail = polynomial(_TAIL, op("Sub", op("Sqrt", w), 3.0))
    return op("Mul", op("Where", op("Less", w, 5.0), middle, tail), x)


def _log2(t: Translator, node: fx.Node) -> ir.Value:
    log = t.builder.op("Log", [t.value(node.args[0])])
    return t.builder.op("Mul", [log, t.value(1.0 / math.log(2.0), node)])


_UNARY = {
    "abs": "Abs", "ceil": "Ceil", "cos": "Cos", "erf": "Erf", "exp": "Exp", "floor": "Floor",
    "log": "Log", "neg": "Neg", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round",
    "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "tanh": "Tanh",
    "isnan": "IsNaN", "logical_not": "Not", "mish": "Mish", "hardswish": "HardSwish",
    "acos": "Acos", "asin": "Asin", "atan": "Atan",
}  # fmt: skip
_COMPARE = {
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}
_IDENTITY = (
    "alias",
    "clone",
    "contiguous",
    "detach",
    "dropout",
    "lift_fresh_copy",
    "lift_fresh",
)

HANDLERS: dict[str, Handler] = {
    **{f"aten.{name}": _unary(op_type) for name, op_type in _UNARY.items()},
    **{f"aten.{name}": _binary(op_type, compare=True) for name, op_type in _COMPARE.items()},
    **{f"aten.{name}": _same for name in _IDENTITY},
    "aten.add": _binary("Add"),
    "aten.sub": _binary("Sub"),
    "aten.rsub": _binary("Sub", reverse=True),
    "aten.mul": _binary("Mul"),
    "aten.div": _division,
    "aten.floor_divide": _division,
    "aten.multiply": _binary("Mul"),
    "aten.subtract": _binary("Sub"),
    "aten.divide": _division,
    "aten.true_divide": _division,
    "aten.pow": _binary("Pow"),
    "aten.maximum": _binary("Max"),
    "aten.minimum": _binary("Min"),
    "aten.remainder": _remainder,
    "aten.ne": _not_equal,
    "aten.to": _cast,
    "aten._to_copy": _cast,
    "aten.type_as": _cast,
    "aten.gelu": _gelu,
    "aten.silu": _silu,
    "aten.rsqrt": _rsqrt,
    "aten.square": _square,
    "aten.softplus": _softplus,
    "aten.elu": _elu,
    "aten.erfinv": _erfinv,
    "aten.expm1": _expm1,
    "aten.log1p": _log1p,
    "aten.log2": _log2,
    "aten.leaky_relu": _leaky_relu,
    "aten.clamp": _clamp,
    "aten.clamp_min": _clamp,
    "aten.clip": _clamp,
    "aten.log_sigmoid": _log_sigmoid,
    "aten.where": _where,
    "aten.masked_fill": _masked_fill,
    "aten.bitwise_not": _bitwise("Not"),
    "aten.bitwise_and": _bitwise("And"),
    "aten.bitwise_or": _bitwise("Or"),
    "aten.logical_and": _bitwise("And"),
    "aten.logical_or": _bitwise("Or"),
    "aten.__and__": _bitwise("And"),
    "aten.__or__": _bitwise("Or"),
}
