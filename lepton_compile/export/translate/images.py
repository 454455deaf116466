"""What models of pictures add: norms by channel, pools, resizing, shifted windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from torch import fx

from .core import Handler, Translator
from .linear import per_axis
from .types import END

__all__ = ["HANDLERS"]


def _shape(argument: Any) -> list[int]:
    """Rows and columns, and what else stands behind the channels."""
    return [int(size) for size in argument.meta["val"].shape[2:]]


def _by_channel(t: Translator, node: fx.Node, argument: Any, usual: float) -> ir.Value:
    """A number for each channel, where the model may have none."""
    if argument is not None:
        return t.value(argument)
    channels = int(node.meta["val"].shape[1])
    return t.builder.constant(np.full([channels], usual, dtype=np.float32))


def _batch_norm(t: Translator, node: fx.Node) -> ir.Value:
    mean, variance = t.arg(node, 3), t.arg(node, 4)
    if t.arg(node, 5, "training"):
        return _standardized(t, node)
    inputs = [
        t.value(node.args[0]),
        _by_channel(t, node, t.arg(node, 1, "weight"), 1.0),
        _by_channel(t, node, t.arg(node, 2, "bias"), 0.0),
        t.value(mean),
        t.value(variance),
    ]
    attributes = {"epsilon": float(t.arg(node, 7, "eps", 1e-5))}
    return t.builder.op("BatchNormalization", inputs, attributes, at=t.path(node))


def _standardized(t: Translator, node: fx.Node) -> ir.Value:
    """By the numbers of the input itself, as some models normalize a convolution's kernel."""
    if any(t.arg(node, place) is not None for place in (1, 2, 3, 4)):
        raise ValueError("by what is in the batch, with numbers of its own")
    x, rank = t.value(node.args[0]), len(node.meta["val"].shape)
    axes = t.builder.ints(0, *range(2, rank))
    apart = t.builder.op("Sub", [x, t.builder.op("ReduceMean", [x, axes], {"keepdims": 1})])
    squares = t.builder.op("Mul", [apart, apart])
    variance = t.builder.op("ReduceMean", [squares, axes], {"keepdims": 1})
    least = t.value(float(t.arg(node, 7, "eps", 1e-5)), node)
    root = t.builder.op("Sqrt", [t.builder.op("Add", [variance, least])])
    return t.builder.op("Div", [apart, root], at=t.path(node))


def _group_norm(t: Translator, node: fx.Node) -> ir.Value:
    inputs = [
        t.value(node.args[0]),
        _by_channel(t, node, t.arg(node, 2, "weight"), 1.0),
        _by_channel(t, node, t.arg(node, 3, "bias"), 0.0),
    ]
    attributes = {
        "num_groups": int(t.arg(node, 1, "num_groups")),
        "epsilon": float(t.arg(node, 4, "eps", 1e-5)),
    }
    return t.builder.op("GroupNormalization", inputs, attributes, at=t.path(node))


def _average(t: Translator, node: fx.Node) -> ir.Value:
    """``avg_pool``; one that divides by a number of its own is not among those that models use."""
    count = len(_shape(node.args[0]))
    kernel = per_axis(node.args[1], count)
    if t.arg(node, 6, "divisor_override") is not None:
        raise ValueError("divided by a number of its own")
    attributes = {
        "kernel_shape": kernel,
        "strides": per_axis(t.arg(node, 2, "stride") or kernel, count),
        "pads": 2 * per_axis(t.arg(node, 3, "padding", 0), count),
        "ceil_mode": int(bool(t.arg(node, 4, "ceil_mode", False))),
        "count_include_pad": int(bool(t.arg(node, 5, "count_include_pad", True))),
    }
    return t.builder.op("AveragePool", [t.value(node.args[0])], attributes, at=t.path(node))


def _largest(t: Translator, node: fx.Node) -> ir.Value:
    count = len(_shape(node.args[0]))
    kernel = per_axis(node.args[1], count)
    attributes = {
        "kernel_shape": kernel,
        "strides": per_axis(t.arg(node, 2, "stride") or kernel, count),
        "pads": 2 * per_axis(t.arg(node, 3, "padding", 0), count),
        "dilations": per_axis(t.arg(node, 4, "dilation", 1), count),
        "ceil_mode": int(bool(t.arg(node, 5, "ceil_mode", False))),
    }
    return t.builder.op("MaxPool", [t.value(node.args[0])], attributes, at=t.path(node))


def _adaptive(t: Translator, node: fx.Node) -> ir.Value:
    """The mean of as many equal parts of each axis as are asked for."""
    before, after = _shape(node.args[0]), _shape(node)
    if any(size % parts for size, parts in zip(before, after, strict=True)):
        raise ValueError("parts that are not equal")
    if set(after) == {1}:
        axes = t.builder.ints(*range(2, 2 + len(before)))
        inputs = [t.value(node.args[0]), axes]
        return t.builder.op("ReduceMean", inputs, {"keepdims": 1}, at=t.path(node))
    kernel = [size // parts for size, parts in zip(before, after, strict=True)]
    attributes = {"kernel_shape": kernel, "strides": kernel}
    return t.builder.op("AveragePool", [t.value(node.args[0])], attributes, at=t.path(node))


def _resize(mode: str, *, smooth: bool = False, exact: bool = False) -> Handler:
    """torch's interpolation of rows and columns; ``smooth`` where it looks at all that it drops,
    ``exact`` where the nearest pixel is told from the middle of each."""

    def handler(t: Translator, node: fx.Node) -> ir.Value:
        x, before, after = t.value(node.args[0]), _shape(node.args[0]), _shape(node)
        aligned = mode != "nearest" and bool(t.arg(node, 2, "align_corners", False))
        given = t.arg(node, 2 if mode == "nearest" else 3, "scale_factors")
        sizes = zip(before, after, strict=True)
        factors = [float(n) for n in given] if given is not None else [n / o for o, n in sizes]
        if set(factors) == {1.0}:
            return x
        attributes: dict[str, Any] = {"mode": mode}
        if smooth:  # at an edge torch weighs what is inside alone
            attributes |= {"antialias": 1, "exclude_outside": 1}
        if mode == "nearest":
            attributes |= {"nearest_mode": "round_prefer_ceil" if exact else "floor"}
        if mode == "cubic":
            attributes |= {"cubic_coeff_a": -0.5 if smooth else -0.75}
        where = "align_corners" if aligned else "half_pixel"
        where = "asymmetric" if mode == "nearest" and not exact else where
        attributes["coordinate_transformation_mode"] = where
        attributes["axes"] = [*range(2, 2 + len(after))]
        scales = t.builder.constant(np.array(factors, np.float32))
        made = [None, scales] if given is not None else [None, None, t.builder.ints(*after)]
        return t.builder.op("Resize", [x, *made], attributes, at=t.path(node))

    return handler


def _roll(t: Translator, node: fx.Node) -> ir.Value:
    """What leaves an axis at one end comes in at the other."""
    value, ints = t.value(node.args[0]), t.builder.ints
    shifts, axes = per_axis(node.args[1], 1), per_axis(t.arg(node, 2, "dims", []), 1)
    shape = node.meta["val"].shape
    if not axes:
        raise ValueError("over all axes at once")
    for shift, axis in zip(shifts, axes, strict=True):
        cut = shift % int(shape[axis])
        if not cut:
            continue
        last = t.builder.op("Slice", [value, ints(-cut), ints(END), ints(axis)])
        first = t.builder.op("Slice", [value, ints(0), ints(-cut), ints(axis)])
        value = t.builder.op("Concat", [last, first], {"axis": axis}, at=t.path(node))
    return value


def _meshgrid(t: Translator, node: fx.Node) -> list[ir.Value]:
    """Each of several rows of numbers along an axis of its own."""
    parts, found = list(node.args[0]), []  # type: ignore[arg-type]
    swapped = node.kwargs.get("indexing") == "xy" and len(parts) > 1
    order = [1, 0, *range(2, len(parts))] if swapped else range(len(parts))
    for part, axis, made in zip(parts, order, node.meta["val"], strict=True):
        sizes = [-1 if place == axis else 1 for place in range(len(parts))]
        flat = t.builder.op("Reshape", [t.value(part), t.builder.ints(*sizes)])
        found.append(t.builder.op("Expand", [flat, t.shape_value(list(made.shape))]))
    return found


def _hard_tanh(t: Translator, node: fx.Node) -> ir.Value:
    """``hardtanh``, of which ``relu6`` is one."""
    low, high = t.arg(node, 1, "min_val", -1.0), t.arg(node, 2, "max_val", 1.0)
    if "relu6" in str(node.target):
        low, high = 0.0, 6.0
    inputs = [t.value(node.args[0]), t.value(float(low), node), t.value(float(high), node)]
    return t.builder.op("Clip", inputs, at=t.path(node))


def _hard_sigmoid(t: Translator, node: fx.Node) -> ir.Value:
    attributes = {"alpha": 1 / 6, "beta": 0.5}
    return t.builder.op("HardSigmoid", [t.value(node.args[0])], attributes, at=t.path(node))


HANDLERS: dict[str, Handler] = {
    "aten.batch_norm": _batch_norm,
    "aten.group_norm": _group_norm,
    "aten.avg_pool1d": _average,
    "aten.avg_pool2d": _average,
    "aten.max_pool2d": _largest,
    "aten.adaptive_avg_pool1d": _adaptive,
    "aten.adaptive_avg_pool2d": _adaptive,
    "aten.upsample_bilinear2d": _resize("linear"),
    "aten.upsample_bicubic2d": _resize("cubic"),
    "aten.upsample_nearest2d": _resize("nearest"),
    "aten._upsample_nearest_exact2d": _resize("nearest", exact=True),
    "aten._upsample_bilinear2d_aa": _resize("linear", smooth=True),
    "aten._upsample_bicubic2d_aa": _resize("cubic", smooth=True),
    "aten.roll": _roll,
    "aten.meshgrid": _meshgrid,
    "aten.hardtanh": _hard_tanh,
    "aten.relu6": _hard_tanh,
    "aten.hardsigmoid": _hard_sigmoid,
}
