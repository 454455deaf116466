"""Shape changes: nothing here computes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from lepton_compile.export.program import same_shape

from .core import DTYPES, Handler, Translator
from .types import END

__all__ = ["HANDLERS"]


def _rank(argument: Any) -> int:
    return len(argument.meta["val"].shape)


def _reshape(t: Translator, node: fx.Node) -> ir.Value:
    """Sizes come from the traced result, where -1 is already resolved."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    shape = t.shape_value(list(node.meta["val"].shape), source)
    return t.builder.op("Reshape", [t.value(source), shape], at=t.path(node))


def _transpose(t: Translator, node: fx.Node) -> ir.Value:
    order = list(range(_rank(node.args[0])))
    first, second = (int(a) for a in node.args[1:3])  # type: ignore[arg-type]
    order[first], order[second] = order[second], order[first]
    return t.builder.op("Transpose", [t.value(node.args[0])], {"perm": order}, at=t.path(node))


def _matrix_transpose(t: Translator, node: fx.Node) -> Any:
    if t.is_weight(node.args[0]) and all(
        str(u.target) == "aten.linear.default" for u in node.users
    ):
        return node  # read by `linear`, which stores it transposed
    return t.builder.op("Transpose", [t.value(node.args[0])], {"perm": [1, 0]}, at=t.path(node))


def _permute(t: Translator, node: fx.Node) -> ir.Value:
    rank = _rank(node.args[0])
    order = [int(a) % rank for a in node.args[1]]  # type: ignore[union-attr, arg-type]
    return t.builder.op("Transpose", [t.value(node.args[0])], {"perm": order}, at=t.path(node))


def _unsqueeze(t: Translator, node: fx.Node) -> ir.Value:
    axis = int(node.args[1])  # type: ignore[arg-type]
    return t.builder.op("Unsqueeze", [t.value(node.args[0]), t.builder.ints(axis)], at=t.path(node))


def _squeeze(t: Translator, node: fx.Node) -> ir.Value:
    source = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    wanted = node.args[1] if len(node.args) > 1 else range(len(source))
    axes = [wanted] if isinstance(wanted, int) else list(wanted)  # type: ignore[arg-type]
    axes = [a for a in axes if source[a] == 1]
    if not axes:
        return t.value(node.args[0])
    return t.builder.op("Squeeze", [t.value(node.args[0]), t.builder.ints(*axes)], at=t.path(node))


def _expand(t: Translator, node: fx.Node) -> ir.Value:
    source = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    target = node.meta["val"].shape
    if same_shape(source, target):
        return t.value(node.args[0])
    return t.builder.op(
        "Expand", [t.value(node.args[0]), t.shape_value(list(target))], at=t.path(node)
    )


def _cat(t: Translator, node: fx.Node) -> ir.Value:
    parts = [n for n in node.args[0] if n.meta["val"].numel() != 0]  # type: ignore[union-attr]
    axis = int(t.arg(node, 1, "dim", 0))
    if len(parts) == 1:
        return t.value(parts[0])
    return t.builder.op("Concat", [t.value(n) for n in parts], {"axis": axis}, at=t.path(node))


def _stack(t: Translator, node: fx.Node) -> ir.Value:
    axis = int(t.arg(node, 1, "dim", 0))
    axis = axis if axis >= 0 else axis + _rank(node.args[0][0]) + 1  # type: ignore[index]
    parts = [t.builder.op("Unsqueeze", [t.value(n), t.builder.ints(axis)]) for n in node.args[0]]  # type: ignore[union-attr]
    return t.builder.op("Concat", parts, {"axis": axis}, at=t.path(node))


def _split(t: Translator, node: fx.Node) -> list[ir.Value]:
    """``split``, ``split_with_sizes`` and ``chunk``: the traced results say the sizes."""
    axis = int(t.arg(node, 2, "dim", 0))
    results = node.meta["val"]
    sizes = [part.shape[axis] for part in results]
    if len(sizes) == 1:
        return [t.value(node.args[0])]
    inputs = [t.value(node.args[0]), t.shape_value(sizes)]
    made = t.builder.node("Split", inputs, {"axis": axis}, outputs=len(sizes), at=t.path(node))
    return list(made.outputs)


def _unbind(t: Translator, node: fx.Node) -> list[ir.Value]:
    axis = int(t.arg(node, 1, "dim", 0))
    count = len(node.meta["val"])
    made = t.builder.node(
        "Split",
        [t.value(node.args[0])],
        {"axis": axis, "num_outputs": count},
        outputs=count,
        at=t.path(node),
    )
    return [
        t.builder.op("Squeeze", [v, t.builder.ints(axis)], at=t.path(node)) for v in made.outputs
    ]


def _repeat(t: Translator, node: fx.Node) -> ir.Value:
    repeats = list(node.args[1])  # type: ignore[arg-type]
    value = t.value(node.args[0])
    missing = len(repeats) - _rank(node.args[0])
    repeats = [1] * -missing + repeats  # `tile` is told of the last axes alone
    if missing > 0:
        value = t.builder.op("Unsqueeze", [value, t.builder.ints(*range(missing))])
    return t.builder.op("Tile", [value, t.shape_value(repeats)], at=t.path(node))


def _repeat_interleave(t: Translator, node: fx.Node) -> ir.Value:
    """Each entry several times in a row: a new axis after it, spread, and folded in."""
    repeats, axis = int(node.args[1]), t.arg(node, 2, "dim")  # type: ignore[arg-type]
    value, rank = t.value(node.args[0]), _rank(node.args[0])
    if axis is None:
        value, rank, axis = t.builder.op("Reshape", [value, t.builder.ints(-1)]), 1, 0
    axis = int(axis) % rank
    wide = t.builder.op("Unsqueeze", [value, t.builder.ints(axis + 1)], at=t.path(node))
    times = [1] * (rank + 1)
    times[axis + 1] = repeats
    spread = t.builder.op("Expand", [wide, t.builder.ints(*times)], at=t.path(node))
    shape = node.meta["val"].shape
    if any(isinstance(size, torch.SymInt) for size in shape[axis + 1 :]):
        return t.builder.op("Reshape", [spread, t.shape_value(list(shape))], at=t.path(node))
    sizes = [0] * axis + [-1] + [int(d) for d in shape[axis + 1 :]]
    return t.builder.op("Reshape", [spread, t.builder.ints(*sizes)], at=t.path(node))


def _flip(t: Translator, node: fx.Node) -> ir.Value:
    axes = [int(a) for a in node.args[1]]  # type: ignore[union-attr, arg-type]
    low = torch.iinfo(torch.int64).min
    starts, ends, steps = [-1] * len(axes), [low] * len(axes), [-1] * len(axes)
    ints = t.builder.ints
    return t.builder.op(
        "Slice", [t.value(node.args[0]), ints(*starts), ints(*ends), ints(*axes), ints(*steps)]
    )


def _pad(t: Translator, node: fx.Node) -> ir.Value:
    """torch counts pairs from the last axis on; ONNX lists all starts, then all ends.

    All axes are listed: where onnxruntime moves a Transpose past a Pad it takes them for all.
    """
    if t.arg(node, 2, "mode", "constant") != "constant":
        raise ValueError("padding with other than one number")
    pairs = [int(size) for size in node.args[1]]  # type: ignore[union-attr, arg-type]
    pairs += [0] * (2 * _rank(node.args[0]) - len(pairs))
    pads = t.builder.ints(*pairs[-2::-2], *pairs[-1::-2])
    dtype = DTYPES[node.meta["val"].dtype].numpy()
    fill = t.builder.constant(np.array(t.arg(node, 3, "value") or 0, dtype=dtype))
    return t.builder.op("Pad", [t.value(node.args[0]), pads, fill], at=t.path(node))


def _pairs(node: fx.Node, first: int) -> list[list[int]]:
    """Kernel, dilation, padding and stride of ``unfold`` and ``fold``, each of rows and columns."""
    return [[int(n) for n in each] for each in node.args[first : first + 4]]  # type: ignore[union-attr, arg-type]


def _columns(t: Translator, node: fx.Node) -> ir.Value:
    """``unfold`` of (batch, channels, height, width): it, once for each place in the kernel, moved
    there."""
    kernel, dilation, padding, stride = _pairs(node, 1)
    value, ints = t.value(node.args[0]), t.builder.ints
    if any(padding):
        pads = ints(0, 0, *padding, 0, 0, *padding)
        value = t.builder.op("Pad", [value, pads], at=t.path(node))
    moved = []
    for place in product(*(range(size) for size in kernel)):
        starts = [p * d for p, d in zip(place, dilation, strict=True)]
        left = [(k - 1 - p) * d for k, p, d in zip(kernel, place, dilation, strict=True)]
        ends = [-n if n else END for n in left]
        steps = [ints(*stride)] if set(stride) != {1} else []
        part = t.builder.op("Slice", [value, ints(*starts), ints(*ends), ints(2, 3), *steps])
        moved.append(t.builder.op("Unsqueeze", [part, ints(2)]))
    stacked = t.builder.op("Concat", moved, {"axis": 2}, at=t.path(node))
    rows = int(node.meta["val"].shape[1])
    return t.builder.op("Reshape", [stacked, ints(0, rows, -1)], at=t.path(node))


def _folded(t: Translator, node: fx.Node) -> ir.Value:
    """``fold``, the sum of patches where they lie: side by side, they are put in order alone."""
    value, ints = t.value(node.args[0]), t.builder.ints
    size = [int(n) for n in node.args[1]]  # type: ignore[union-attr, arg-type]
    kernel, dilation, padding, stride = _pairs(node, 2)
    channels = int(node.meta["val"].shape[1])
    apart = kernel == stride and set(dilation) == {1} and not any(padding)
    if apart and not any(n % k for n, k in zip(size, kernel, strict=True)):
        counts = [n // k for n, k in zip(size, kernel, strict=True)]
        split = t.builder.op("Reshape", [value, ints(0, channels, *kernel, *counts)])
        turned = t.builder.op("Transpose", [split], {"perm": [0, 1, 4, 2, 5, 3]}, at=t.path(node))
        return t.builder.op("Reshape", [turned, ints(0, channels, *size)], at=t.path(node))
    attributes = {"dilations": dilation, "pads": 2 * padding, "strides": stride}
    inputs = [value, ints(*size), ints(*kernel)]
    return t.builder.op("Col2Im", inputs, attributes, at=t.path(node))


def _broadcast(t: Translator, node: fx.Node) -> list[ir.Value]:
    """Each of several tensors in the shape that they have in common."""
    found = []
    for given, made in zip(node.args[0], node.meta["val"], strict=True):  # type: ignore[arg-type]
        value = t.value(given)
        if not same_shape(given.meta["val"].shape, made.shape):
            value = t.builder.op("Expand", [value, t.shape_value(list(made.shape))])
        found.append(value)
    return found


HANDLERS: dict[str, Handler] = {
    "aten.pad": _pad,
    "aten.im2col": _columns,
    "aten.col2im": _folded,
    "aten.view": _reshape,
    "aten.reshape": _reshape,
    "aten._unsafe_view": _reshape,
    "aten.flatten": _reshape,
    "aten.unflatten": _reshape,
    "aten.view_as": _reshape,
    "aten.reshape_as": _reshape,
    "aten.transpose": _transpose,
    "aten.t": _matrix_transpose,
    "aten.numpy_T": _matrix_transpose,
    "aten.permute": _permute,
    "aten.unsqueeze": _unsqueeze,
    "aten.squeeze": _squeeze,
    "aten.expand": _expand,
    "aten.expand_as": _expand,
    "aten.broadcast_to": _expand,
    "aten.cat": _cat,
    "aten.concat": _cat,
    "aten.concatenate": _cat,
    "aten.stack": _stack,
    "aten.split": _split,
    "aten.split_with_sizes": _split,
    "aten.chunk": _split,
    "aten.unbind": _unbind,
    "aten.repeat": _repeat,
    "aten.tile": _repeat,
    "aten.broadcast_tensors": _broadcast,
    "aten.repeat_interleave": _repeat_interleave,
    "aten.flip": _flip,
}
