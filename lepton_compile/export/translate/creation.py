"""Tensors made from sizes and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from lepton_compile.export.program import same_shape

from .core import DTYPES, Handler, Translator

__all__ = ["HANDLERS"]


def _filled(t: Translator, node: fx.Node, fill: Any) -> ir.Value:
    dtype = node.meta["val"].dtype
    scalar = t.builder.constant(np.array(fill, dtype=DTYPES[dtype].numpy()))
    shape = node.meta["val"].shape
    return (
        scalar
        if not shape
        else t.builder.op("Expand", [scalar, t.shape_value(list(shape))], at=t.path(node))
    )


def _constant_fill(fill: float) -> Handler:
    return lambda t, node: _filled(t, node, fill)


def _full(t: Translator, node: fx.Node) -> ir.Value:
    fill = t.get(node.args[1])
    if isinstance(fill, bool | int | float):
        return _filled(t, node, fill)
    return t.builder.op(
        "Expand", [t.value(node.args[1], node), t.shape_value(list(node.meta["val"].shape))]
    )


def _fill(t: Translator, node: fx.Node) -> ir.Value:
    """``x.fill_(..)`` and ``x[..] = ..`` of one number."""
    fill = t.get(t.arg(node, 1, "value"))
    if isinstance(fill, bool | int | float):
        return _filled(t, node, fill)
    return _copy(t, node)


def _copy(t: Translator, node: fx.Node) -> ir.Value:
    """``x[..] = y``: what is written, in the type and shape of what it is written into."""
    into, source = node.args[:2]
    given, wanted = (n.meta["val"] for n in (source, into))  # type: ignore[union-attr]
    value = t.value(source)
    if given.dtype != wanted.dtype:
        value = t.builder.op("Cast", [value], {"to": DTYPES[wanted.dtype].value})
    if not same_shape(given.shape, wanted.shape):
        value = t.builder.op("Expand", [value, t.shape_value(list(wanted.shape))], at=t.path(node))
    return value


def _arange(t: Translator, node: fx.Node) -> ir.Value:
    """``arange(end)``, ``arange(start, end)``, ``arange(start, end, step)``.

    Runtimes add the step again and again, which of a fraction gives other numbers than torch's, and
    may give another number of them.
    """
    bounds = [t.get(argument) for argument in node.args]
    start, end, step = {1: (0, *bounds, 1), 2: (*bounds, 1), 3: tuple(bounds)}[len(bounds)]
    dtype = node.meta["val"].dtype
    if isinstance(step, float) and not step.is_integer():
        if isinstance(start, torch.SymInt) or isinstance(end, torch.SymInt):
            raise ValueError("by a fraction, as far as a size that is open")
        return t.builder.constant(torch.arange(start, end, step, dtype=dtype).numpy())
    scalars = [_scalar(t, bound, dtype) for bound in (start, end, step)]
    return t.builder.op("Range", scalars, at=t.path(node))


def _scalar(t: Translator, bound: Any, dtype: torch.dtype) -> ir.Value:
    if not isinstance(bound, torch.SymInt):
        return t.builder.constant(np.array(bound, dtype=DTYPES[dtype].numpy()))
    value = t.builder.op("Squeeze", [t.size(bound), t.builder.ints(0)])
    return (
        value
        if dtype == torch.int64
        else t.builder.op("Cast", [value], {"to": DTYPES[dtype].value})
    )


def _scalar_tensor(t: Translator, node: fx.Node) -> ir.Value:
    return _scalar(t, t.get(node.args[0]), node.meta["val"].dtype)


HANDLERS: dict[str, Handler] = {
    "aten.zeros": _constant_fill(0),
    "aten.zeros_like": _constant_fill(0),
    "aten.new_zeros": _constant_fill(0),
    "aten.ones": _constant_fill(1),
    "aten.ones_like": _constant_fill(1),
    "aten.new_ones": _constant_fill(1),
    "aten.full": _full,
    "aten.full_like": _full,
    "aten.new_full": lambda t, node: _filled(t, node, t.get(node.args[2])),
    "aten.arange": _arange,
    "aten.copy": _copy,
    "lepton.write": _copy,
    "aten.fill": _fill,
    "aten.zero": _constant_fill(0),
    "aten.scalar_tensor": _scalar_tensor,
}
