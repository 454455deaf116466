"""Fourier transforms, as products with matrices of cosines and sines.

Along an axis of n numbers, exp(-2 pi i j k / n) = cos - i sin, so that of x + i y the transform is

    (x C + y S) + i (y C - x S)        C[j, k] = cos(2 pi j k / n), S the same with sin.

The standard's own op for it, DFT, loses four digits in ONNX Runtime, and is the slower one for the
lengths of texts. The matrices are made in the graph, for a length of a text is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import onnx_ir as ir
from torch import fx

from .core import Handler, Translator

__all__ = ["HANDLERS"]

Part = Callable[[], ir.Value]


class _Complex(NamedTuple):
    """A complex tensor: its parts, each made when something reads it. Numbers are real where
    ``imaginary`` is None."""

    real: Part
    imaginary: Part | None


def _fft(t: Translator, node: fx.Node) -> _Complex:
    """``fft``, ``fft2`` and ``fftn`` over the last axes, in their whole length."""
    rank, name = len(node.meta["val"].shape), str(node.target).split(".")[1]
    default = {"fft_fft": -1, "fft_fft2": [-2, -1], "fft_fftn": range(rank)}[name]
    given: Any = t.arg(node, 2, "dim", default)
    given = default if given is None else given
    each = [given] if isinstance(given, int) else given
    axes = sorted({axis % rank for axis in each}, reverse=True)
    if t.arg(node, 1) is not None or axes[-1] < rank - 2:
        raise ValueError("other than the whole of the last two axes")
    if t.arg(node, 3, "norm") not in (None, "backward"):
        raise ValueError("scaled")
    found = t.get(node.args[0])
    if not isinstance(found, _Complex):
        x = t.value(node.args[0])
        found = _Complex(lambda: x, None)
    for axis in axes:
        found = _along(t, node, found, axis)
    return found


def _along(t: Translator, node: fx.Node, given: _Complex, axis: int) -> _Complex:
    shape = node.meta["val"].shape
    cosine, sine = _matrices(t, shape[axis])
    x, y = given.real(), None if given.imaginary is None else given.imaginary()

    def times(value: ir.Value, matrix: ir.Value) -> ir.Value:
        pair = [value, matrix] if axis == len(shape) - 1 else [matrix, value]
        return t.builder.op("MatMul", pair, at=t.path(node))

    def real() -> ir.Value:
        cosines = times(x, cosine)
        return cosines if y is None else t.builder.op("Add", [cosines, times(y, sine)])

    def imaginary() -> ir.Value:
        sines = times(x, sine)
        if y is None:
            return t.builder.op("Neg", [sines])
        return t.builder.op("Sub", [times(y, cosine), sines])

    return _Complex(real, imaginary)


def _matrices(t: Translator, size: Any) -> tuple[ir.Value, ir.Value]:
    """C and S. Whole turns are left out while the numbers are whole: angles stay exact."""
    op, count = t.builder.op, t.size(size)
    zero, one = (t.builder.op("Squeeze", [t.builder.ints(n), t.builder.ints(0)]) for n in (0, 1))
    steps = op("Range", [zero, op("Squeeze", [count, t.builder.ints(0)]), one])
    rows, columns = (op("Unsqueeze", [steps, t.builder.ints(axis)]) for axis in (1, 0))
    turns = op("Mod", [op("Mul", [rows, columns]), count])
    whole, part = (op("Cast", [v], {"to": ir.DataType.FLOAT.value}) for v in (count, turns))
    angles = op("Mul", [part, op("Div", [t.value(2.0 * math.pi), whole])])
    return op("Cos", [angles]), op("Sin", [angles])


def _part(name: str) -> Handler:
    def handler(t: Translator, node: fx.Node) -> ir.Value:
        found = t.get(node.args[0])
        if not isinstance(found, _Complex):
            return t.value(node.args[0])
        part: Part | None = getattr(found, name)
        if part is None:
            raise ValueError("of numbers that are real")
        return part()

    return handler


HANDLERS: dict[str, Handler] = {
    "aten.fft_fft": _fft,
    "aten.fft_fft2": _fft,
    "aten.fft_fftn": _fft,
    "aten.real": _part("real"),
    "aten.imag": _part("imaginary"),
}
