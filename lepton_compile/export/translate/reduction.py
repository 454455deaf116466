"""Reductions, the largest of a row, softmax and cumulative sums."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from .core import DTYPES, Handler, Translator

__all__ = ["HANDLERS"]


def _axes(argument: Any) -> list[int]:
    return [argument] if isinstance(argument, int) else list(argument or [])


def _typed_input(t: Translator, node: fx.Node) -> ir.Value:
    """The input in the result's type: torch sums booleans as integers."""
    source, target = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
    value = t.value(node.args[0])
    return (
        value if source == target else t.builder.op("Cast", [value], {"to": DTYPES[target].value})
    )


def _reduce(op_type: str) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        keep = bool(t.arg(node, 2, "keepdim", False))
        inputs: list[ir.Value | None] = [_typed_input(t, node)]
        axes = _axes(t.arg(node, 1, "dim"))
        if axes:
            inputs.append(t.builder.ints(*axes))
        return t.builder.op(op_type, inputs, {"keepdims": int(keep)}, at=t.path(node))

    return handler


def _extreme(reduce: str, index: str) -> Handler:
    """``max``/``min``: over everything, over one axis with the indices, or of two tensors."""

    def handler(t: Translator, node: fx.Node) -> Any:
        value = t.value(node.args[0])
        if len(node.args) == 1:
            return t.builder.op(reduce, [value], {"keepdims": 0}, at=t.path(node))
        if isinstance(node.args[1], fx.Node):
            pair = [value, t.value(node.args[1])]
            return t.builder.op(reduce.removeprefix("Reduce"), pair, at=t.path(node))
        axis, keep = int(node.args[1]), int(bool(t.arg(node, 2, "keepdim", False)))  # type: ignore[arg-type]
        best = t.builder.op(
            reduce, [value, t.builder.ints(axis)], {"keepdims": keep}, at=t.path(node)
        )
        where = t.builder.op(index, [value], {"axis": axis, "keepdims": keep}, at=t.path(node))
        return [best, where]

    return handler


def _place(op_type: str) -> Handler:
    """Where the largest or least number is, along an axis or of all."""

    def handler(t: Translator, node: fx.Node) -> ir.Value:
        axis, keep = t.arg(node, 1, "dim"), int(bool(t.arg(node, 2, "keepdim", False)))
        value = t.value(node.args[0])
        if axis is None:
            value, axis = t.builder.op("Reshape", [value, t.builder.ints(-1)]), 0
        attributes = {"axis": int(axis), "keepdims": keep}
        return t.builder.op(op_type, [value], attributes, at=t.path(node))

    return handler


def _topk(t: Translator, node: fx.Node) -> list[ir.Value]:
    axis, largest = int(t.arg(node, 2, "dim", -1)), bool(t.arg(node, 3, "largest", True))
    count = t.builder.ints(int(t.arg(node, 1, "k")))
    made = t.builder.node(
        "TopK",
        [t.value(node.args[0]), count],
        {"axis": axis, "largest": int(largest), "sorted": 1},
        outputs=2,
        at=t.path(node),
    )
    return list(made.outputs)


def _softmax(op_type: str) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        return t.builder.op(
            op_type, [_typed_input(t, node)], {"axis": int(t.arg(node, 1, "dim"))}, at=t.path(node)
        )

    return handler


def _cumsum(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op(
        "CumSum",
        [_typed_input(t, node), t.builder.ints(int(t.arg(node, 1, "dim")))],
        at=t.path(node),
    )


def _norm(t: Translator, node: fx.Node) -> ir.Value:
    axes, keep = _axes(t.arg(node, 2, "dim")), int(bool(t.arg(node, 3, "keepdim", False)))
    op_type = {1: "ReduceL1", 2: "ReduceL2"}[t.arg(node, 1, "ord", 2)]
    return t.builder.op(
        op_type, [t.value(node.args[0]), t.builder.ints(*axes)], {"keepdims": keep}, at=t.path(node)
    )


def _spread(root: bool) -> Handler:
    """``var`` and ``std`` over axes of a fixed size."""

    def handler(t: Translator, node: fx.Node) -> ir.Value:
        shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
        axes = _axes(t.arg(node, 1, "dim")) or list(range(len(shape)))
        less, keep = t.arg(node, 2, "unbiased", True), int(bool(t.arg(node, 3, "keepdim", False)))
        if str(node.target).endswith(".correction"):
            less = node.kwargs.get("correction", 1)
        x, where = t.value(node.args[0]), t.builder.ints(*axes)
        apart = t.builder.op("Sub", [x, t.builder.op("ReduceMean", [x, where], {"keepdims": 1})])
        squares = t.builder.op("Mul", [apart, apart])
        found = t.builder.op("ReduceMean", [squares, where], {"keepdims": keep}, at=t.path(node))
        if less:
            if any(isinstance(shape[axis], torch.SymInt) for axis in axes):
                raise ValueError("of a number of values that is open")
            count = math.prod(int(shape[axis]) for axis in axes)
            found = t.builder.op("Mul", [found, t.value(count / (count - float(less)), node)])
        return t.builder.op("Sqrt", [found], at=t.path(node)) if root else found

    return handler


HANDLERS: dict[str, Handler] = {
    "aten.sum": _reduce("ReduceSum"),
    "aten.mean": _reduce("ReduceMean"),
    "aten.amax": _reduce("ReduceMax"),
    "aten.amin": _reduce("ReduceMin"),
    "aten.logsumexp": _reduce("ReduceLogSumExp"),
    "aten.max": _extreme("ReduceMax", "ArgMax"),
    "aten.min": _extreme("ReduceMin", "ArgMin"),
    "aten.argmax": _place("ArgMax"),
    "aten.argmin": _place("ArgMin"),
    "aten.topk": _topk,
    "aten.softmax": _softmax("Softmax"),
    "aten._softmax": _softmax("Softmax"),
    "aten.log_softmax": _softmax("LogSoftmax"),
    "aten.cumsum": _cumsum,
    "aten.linalg_vector_norm": _norm,
    "aten.std": _spread(root=True),
    "aten.var": _spread(root=False),
}
