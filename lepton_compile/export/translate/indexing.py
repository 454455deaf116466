"""Reading and writing parts of tensors."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from lepton_compile.errors import ExportError
from lepton_compile.export.program import same_shape

from .core import DTYPES, Handler, Translator
from .types import END

__all__ = ["HANDLERS"]


def _embedding(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op(
        "Gather", [t.value(node.args[0]), t.value(node.args[1])], {"axis": 0}, at=t.path(node)
    )


def _slice(t: Translator, node: fx.Node) -> ir.Value:
    source = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    step = t.arg(node, 4, "step", 1)
    if step == 1 and same_shape(source, node.meta["val"].shape):
        return t.value(node.args[0])
    axis = int(t.arg(node, 1, "dim", 0))
    start, end = (t.get(t.arg(node, i, name)) for i, name in ((2, "start"), (3, "end")))
    start, end = (0 if start is None else start), (END if end is None else end)
    inputs = [t.value(node.args[0]), t.size(start), t.size(end), t.builder.ints(axis)]
    if step != 1:
        inputs.append(t.builder.ints(int(step)))
    return t.builder.op("Slice", inputs, at=t.path(node))


def _select(t: Translator, node: fx.Node) -> ir.Value:
    axis = int(t.arg(node, 1, "dim"))
    if (one := _repeated(node.args[0], axis)) is not None:
        if str(one.target) == "aten.unsqueeze.default" and one.args[1] == axis:
            return t.value(one.args[0])
        return t.builder.op("Squeeze", [t.value(one), t.builder.ints(axis)], at=t.path(node))
    index = t.get(t.arg(node, 2, "index"))
    scalar = t.builder.op("Squeeze", [t.size(index), t.builder.ints(0)])
    return t.builder.op("Gather", [t.value(node.args[0]), scalar], {"axis": axis}, at=t.path(node))


def _repeated(argument: Any, axis: int) -> fx.Node | None:
    """What ``argument`` repeats along a leading ``axis``, so that its entries are all alike: a node
    with one. Positions come so, once for each axis of an image."""
    node = argument
    while isinstance(node, fx.Node) and str(node.target) == "aten.slice.Tensor":
        if int(node.args[1]) != axis:  # type: ignore[arg-type]
            return None
        node = node.args[0]
    if not isinstance(node, fx.Node) or str(node.target) != "aten.expand.default":
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before, after = (x.meta["val"].shape for x in (source, node))
    alike = str(before[0]) == "1" and same_shape(before[1:], after[1:])
    return source if axis == 0 and alike else None


def _index(t: Translator, node: fx.Node) -> ir.Value:
    """``x[i]`` and ``x[i, j]`` with index tensors on the leading axes, or one on any axis."""
    indices = list(node.args[1])  # type: ignore[arg-type]
    used = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if any(index.meta["val"].dtype == torch.bool for _, index in used):
        raise ExportError("the model indexes with a boolean mask", where=t.path(node))
    source = t.value(node.args[0])
    if len(used) == 1:
        axis, index = used[0]
        return t.builder.op("Gather", [source, t.value(index)], {"axis": axis}, at=t.path(node))
    if [axis for axis, _ in used] != list(range(len(used))):
        raise ExportError(
            "the model indexes axes that are not the leading ones", where=t.path(node)
        )
    shapes = [list(index.meta["val"].shape) for _, index in used]
    wide = list(torch.broadcast_shapes(*[tuple(s) for s in shapes]))  # type: ignore[no-untyped-call]
    target = t.shape_value(wide)
    columns = []
    for _, index in used:
        spread = t.builder.op("Expand", [t.value(index), target])
        columns.append(t.builder.op("Unsqueeze", [spread, t.builder.ints(-1)]))
    where = t.builder.op("Concat", columns, {"axis": -1})
    return t.builder.op("GatherND", [source, where], at=t.path(node))


def _gather(t: Translator, node: fx.Node) -> ir.Value:
    axis = int(t.arg(node, 1, "dim"))
    return t.builder.op(
        "GatherElements",
        [t.value(node.args[0]), t.value(node.args[2])],
        {"axis": axis},
        at=t.path(node),
    )


def _scatter(t: Translator, node: fx.Node) -> ir.Value:
    """``x.scatter(dim, index, ..)`` of a tensor, or of one number for all places."""
    index, source = t.value(node.args[2]), t.arg(node, 3, "value")
    if node.kwargs.get("reduce") is not None:
        raise ExportError("the model adds up what it scatters", where=t.path(node))
    updates = t.value(source, node)
    if not isinstance(source, fx.Node):
        shape = t.builder.op("Shape", [index])
        updates = t.builder.op("Expand", [updates, shape], at=t.path(node))
    inputs = [t.value(node.args[0]), index, updates]
    axis = int(t.arg(node, 1, "dim"))
    return t.builder.op("ScatterElements", inputs, {"axis": axis}, at=t.path(node))


def _index_put(t: Translator, node: fx.Node) -> ir.Value:
    """``x[mask] = number``, of a boolean mask for the leading axes."""
    given, source = list(node.args[1]), node.args[2]  # type: ignore[arg-type]
    where = given[0].meta["val"]
    one = source.meta["val"].numel() == 1  # type: ignore[union-attr]
    if len(given) > 1 or where.dtype != torch.bool or not one or len(node.args) > 3:
        raise ValueError("other than one number at a boolean mask")
    mask, axes = t.value(given[0]), range(where.ndim, node.meta["val"].ndim)
    if axes:
        mask = t.builder.op("Unsqueeze", [mask, t.builder.ints(*axes)])
    inputs = [mask, t.value(source), t.value(node.args[0])]
    return t.builder.op("Where", inputs, at=t.path(node))


def _index_select(t: Translator, node: fx.Node) -> ir.Value:
    axis = int(t.arg(node, 1, "dim"))
    return t.builder.op(
        "Gather", [t.value(node.args[0]), t.value(node.args[2])], {"axis": axis}, at=t.path(node)
    )


def _triangle(upper: int) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        diagonal = t.builder.constant(torch.tensor(int(t.arg(node, 1, "diagonal", 0))).numpy())
        return t.builder.op(
            "Trilu", [t.value(node.args[0]), diagonal], {"upper": upper}, at=t.path(node)
        )

    return handler


def _bucketize(t: Translator, node: fx.Node) -> ir.Value:
    """How many boundaries, which are in order, lie below each number, or on it with ``right``."""
    right = bool(t.arg(node, 3, "right", False))
    if len({given.meta["val"].dtype for given in node.args[:2]}) > 1:  # type: ignore[union-attr]
        raise ValueError("of numbers in another type than their boundaries")
    wide = t.builder.op("Unsqueeze", [t.value(node.args[0]), t.builder.ints(-1)], at=t.path(node))
    compared = "GreaterOrEqual" if right else "Greater"
    below = t.builder.op(compared, [wide, t.value(node.args[1])], at=t.path(node))
    ones = t.builder.op("Cast", [below], {"to": DTYPES[node.meta["val"].dtype]}, at=t.path(node))
    return t.builder.op("ReduceSum", [ones, t.builder.ints(-1)], {"keepdims": 0}, at=t.path(node))


HANDLERS: dict[str, Handler] = {
    "aten.bucketize": _bucketize,
    "aten.embedding": _embedding,
    "aten.slice": _slice,
    "aten.select": _select,
    "aten.index": _index,
    "aten.gather": _gather,
    "aten.index_put": _index_put,
    "aten.index_select": _index_select,
    "aten.scatter": _scatter,
    "aten.tril": _triangle(0),
    "aten.triu": _triangle(1),
}
