"""Linear layers that read the same input, as one layer with their rows stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.grouped import FloatCodes
from lepton_passes.linear import Linear, dequantized
from lepton_passes.match import bias_of
from lepton_passes.tensors import concat_rows

__all__ = ["Projection", "projection", "refuses", "stack"]


@dataclass(frozen=True)
class Projection:
    """A linear layer with its bias; ``y`` is the value that others read."""

    linear: Linear
    bias: ir.Value | None
    y: ir.Value


def projection(body: Body, linear: Linear) -> Projection:
    """``linear`` and the bias behind it, if there is one."""
    found = bias_of(body, linear.y, linear.weight.rows)
    return (
        Projection(linear, None, linear.y)
        if found is None
        else Projection(linear, found[1], found[0])
    )


def refuses(parts: Sequence[Projection]) -> str | None:
    """Why the layers cannot be stacked."""
    if len({part.linear.x for part in parts}) > 1:
        return "the projections read different inputs"
    if len({part.linear.weight.kind for part in parts}) > 1:
        return "the projections are stored in different formats"
    if len({part.bias is None for part in parts}) > 1:
        return "only some of the projections have a bias"
    if len({part.linear.weight.values[0] for part in parts}) < len(parts):
        return "two projections share a weight"
    if any(part.y.is_graph_output() for part in parts):
        return "a projection is an output"
    return None


def stack(body: Body, parts: Sequence[Projection], name: str) -> None:
    """One linear layer and a Split in place of ``parts``; ``name`` is the new parameter's."""
    order = {node: index for index, node in enumerate(body.graph)}
    first = min((part.linear.node for part in parts), key=order.__getitem__)
    y = _product(body, parts, name, first)
    if parts[0].bias is not None:
        biases = [part.bias for part in parts if part.bias is not None]
        bias = _concatenated(body, biases, f"{name}.bias")
        y = body.emit(first, "Add", [y, bias]).outputs[0]
    rows = np.array([part.linear.weight.rows for part in parts], dtype=np.int64)
    sizes = body.constant_node(first, rows)
    split = body.emit(first, "Split", [y, sizes], {"axis": -1}, outputs=len(parts))
    for part, out in zip(parts, split.outputs, strict=True):
        body.replace(part.y, out)


def _product(body: Body, parts: Sequence[Projection], name: str, before: ir.Node) -> ir.Value:
    weights = [part.linear.weight for part in parts]
    first, rows = weights[0], sum(weight.rows for weight in weights)
    of_values = ("", "_scale", "_offset" if first.offsets else "_zero")
    inputs = [
        _concatenated(body, values, f"{name}.weight{of}")
        for of, *values in zip(of_values, *(w.values for w in weights), strict=False)
    ]
    weight = inputs[0]
    if not first.plain:
        weight = dequantized(
            body, before, inputs, first.group, (rows, first.columns), offsets=first.offsets
        )
    turned = body.emit(before, "Transpose", [weight], {"perm": (1, 0)})
    return body.emit(before, "MatMul", [parts[0].linear.x, turned.outputs[0]]).outputs[0]


def _concatenated(body: Body, values: Sequence[ir.Value], name: str) -> ir.Value:
    def make(tensors: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
        whole = concat_rows("+".join(t.name or "" for t in tensors), tensors)
        floats = all(isinstance(each, FloatCodes) for each in tensors)
        return FloatCodes.of(whole) if floats else whole

    suffix = "_q" if (values[0].name or "").endswith("_q") else ""
    return body.derive(values, f"{name}{suffix}", make)
