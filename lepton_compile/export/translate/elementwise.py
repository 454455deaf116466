"""Elementwise arithmetic and comparisons."""

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
        dtype = node.meta["val"].dtype  # of whole numbers torch takes roots and the like as floats
        value = _typed(t, node.args[0], dtype) if dtype.is_floating_point else t.value(node.args[0])
        return t.builder.op(op_type, [value], at=t.path(node))

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
    return _towards_zero(t, quotient)


def _towards_zero(t: Translator, x: ir.Value) -> ir.Value:
    least = t.builder.op("Floor", [t.builder.op("Abs", [x])])
    return t.builder.op("Mul", [t.builder.op("Sign", [x]), least])


def _trunc(t: Translator, node: fx.Node) -> ir.Value:
    return _towards_zero(t, t.value(node.args[0]))


def _remainder(t: Translator, node: fx.Node) -> ir.Value:
    """Of the sign of what it is divided by. Before opset 28 Mod does that with integers alone."""
    dtype = node.meta["val"].dtype
    left, right = (_typed(t, argument, dtype) for argument in node.args[:2])
    if not dtype.is_floating_point:
        return t.builder.op("Mod", [left, right], at=t.path(node))
    times = t.builder.op("Floor", [t.builder.op("Div", [left, right])])
    return t.builder.op("Sub", [left, t.builder.op("Mul", [times, right])], at=t.path(node))


def _fmod(t: Translator, node: fx.Node) -> ir.Value:
    """What is left over, of the sign of what is divided."""
    pair = [_typed(t, argument, node.meta["val"].dtype) for argument in node.args[:2]]
    return t.builder.op("Mod", pair, {"fmod": 1}, at=t.path(node))


def _cast(t: Translator, node: fx.Node) -> Any:
    source, target = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
    if source == target:
        return _same(t, node)
    return t.builder.op(
        "Cast", [t.value(node.args[0])], {"to": DTYPES[target].value}, at=t.path(node)
    )


def _rsqrt(t: Translator, node: fx.Node) -> ir.Value:
    value = _typed(t, node.args[0], node.meta["val"].dtype)
    return t.builder.op("Reciprocal", [t.builder.op("Sqrt", [value])], at=t.path(node))


def _clamp(t: Translator, node: fx.Node) -> ir.Value:
    bounds = [t.arg(node, index, name) for index, name in ((1, "min"), (2, "max"))]
    if all(isinstance(each, fx.Node) and each.meta["val"].ndim == 0 for each in bounds):
        given = [_typed(t, each, node.meta["val"].dtype) for each in (node.args[0], *bounds)]
        return t.builder.op("Clip", given, at=t.path(node))
    result = t.value(node.args[0])
    for index, name, op_type in ((1, "min", "Max"), (2, "max", "Min")):
        bound = t.arg(node, index, name)
        if bound is not None:
            result = t.builder.op(op_type, [result, _typed(t, bound, node.meta["val"].dtype)])
    return result


def _clamp_max(t: Translator, node: fx.Node) -> ir.Value:
    pair = [_typed(t, argument, node.meta["val"].dtype) for argument in node.args[:2]]
    return t.builder.op("Min", pair, at=t.path(node))


def _lerp(t: Translator, node: fx.Node) -> ir.Value:
    """``start + weight (end - start)``."""
    start, end, weight = (_typed(t, each, node.meta["val"].dtype) for each in node.args[:3])
    way = t.builder.op("Mul", [weight, t.builder.op("Sub", [end, start])])
    return t.builder.op("Add", [start, way], at=t.path(node))


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


def _log1p(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    return t.builder.op("Log", [t.builder.op("Add", [x, t.value(1.0, node)])])


def _expm1(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    return t.builder.op("Sub", [t.builder.op("Exp", [x]), t.value(1.0, node)], at=t.path(node))


def _square(t: Translator, node: fx.Node) -> ir.Value:
    x = t.value(node.args[0])
    return t.builder.op("Mul", [x, x], at=t.path(node))


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


def _atan2(t: Translator, node: fx.Node) -> ir.Value:
    """The angle of (x, y): of y / x, half a turn further where x is negative. Zero has no sign."""
    dtype = node.meta["val"].dtype
    y, x = (_typed(t, argument, dtype) for argument in node.args[:2])
    zero, half, quarter, one = (
        t.builder.constant(torch.tensor(number, dtype=dtype).numpy())
        for number in (0.0, math.pi, math.pi / 2, 1.0)
    )
    upright = t.builder.op("Equal", [x, zero])
    divisor = t.builder.op("Where", [upright, one, x])
    angle = t.builder.op("Atan", [t.builder.op("Div", [y, divisor])], at=t.path(node))
    below = t.builder.op("Less", [y, zero])
    turn = t.builder.op("Where", [below, t.builder.op("Neg", [half]), half])
    turned = t.builder.op("Add", [angle, turn])
    angle = t.builder.op("Where", [t.builder.op("Less", [x, zero]), turned, angle])
    straight = t.builder.op("Mul", [t.builder.op("Sign", [y]), quarter])
    return t.builder.op("Where", [upright, straight, angle], at=t.path(node))


def _log2(t: Translator, node: fx.Node) -> ir.Value:
    log = t.builder.op("Log", [t.value(node.args[0])])
    return t.builder.op("Mul", [log, t.value(1.0 / math.log(2.0), node)])


_UNARY = {
    "abs": "Abs", "ceil": "Ceil", "cos": "Cos", "erf": "Erf", "exp": "Exp", "floor": "Floor",
    "log": "Log", "neg": "Neg", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round",
    "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "tanh": "Tanh",
    "isnan": "IsNaN", "mish": "Mish", "hardswish": "HardSwish", "selu": "Selu",
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
    "aten.fmod": _fmod,
    "aten.trunc": _trunc,
    "aten.fix": _trunc,
    "aten.lerp": _lerp,
    "aten.atan2": _atan2,
    "aten.arctan2": _atan2,
    "aten.ne": _not_equal,
    "aten.to": _cast,
    "aten._to_copy": _cast,
    "aten.type_as": _cast,
    "aten.rsqrt": _rsqrt,
    "aten.square": _square,
    "aten.erfinv": _erfinv,
    "aten.expm1": _expm1,
    "aten.log1p": _log1p,
    "aten.log2": _log2,
    "aten.clamp": _clamp,
    "aten.clamp_min": _clamp,
    "aten.clamp_max": _clamp_max,
    "aten.clip": _clamp,
    "aten.where": _where,
    "aten.masked_fill": _masked_fill,
    "aten.bitwise_not": _bitwise("Not"),
    "aten.bitwise_and": _bitwise("And"),
    "aten.bitwise_or": _bitwise("Or"),
    "aten.bitwise_xor": _bitwise("Xor"),
    "aten.logical_not": _bitwise("Not"),
    "aten.logical_xor": _bitwise("Xor"),
    "aten.logical_and": _bitwise("And"),
    "aten.logical_or": _bitwise("Or"),
    "aten.__and__": _bitwise("And"),
    "aten.__or__": _bitwise("Or"),
    "aten.__xor__": _bitwise("Xor"),
}
