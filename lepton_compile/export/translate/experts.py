"""Experts in the neutral dialect: their matrices one under the other, each as (out, in)."""

from __future__ import annotations

import onnx_ir as ir
from torch import fx

from lepton_compile.errors import ExportError
from lepton_compile.export.dialect import DOMAIN

from .core import Handler, Translator

__all__ = ["HANDLERS"]


def _experts(t: Translator, node: fx.Node) -> ir.Value:
    x, indices, shares, gate_up, down, *rest = node.args
    *biases, alpha, beta, limit, interleaved, transposed, activation, gated = rest
    transform = "stack-transpose" if transposed else "stack"
    inputs: list[ir.Value | None] = [t.value(each) for each in (x, indices, shares)]
    inputs += [_stack(t, each, transform) for each in (gate_up, down)]  # type: ignore[arg-type]
    inputs += [t.value(bias) for bias in biases if bias is not None]
    attributes = {
        "experts": int(gate_up.meta["val"].shape[0]),  # type: ignore[union-attr]
        "chosen": int(indices.meta["val"].shape[1]),  # type: ignore[union-attr]
        "alpha": float(alpha),  # type: ignore[arg-type]
        "beta": float(beta),  # type: ignore[arg-type]
        "limit": float(limit),  # type: ignore[arg-type]
        "interleaved": int(bool(interleaved)),
        "activation": str(activation),
        "gated": int(bool(gated)),
    }
    return t.builder.op("Experts", inputs, attributes, domain=DOMAIN, at=t.path(node))


def _stack(t: Translator, argument: fx.Node, transform: str) -> ir.Value:
    """A parameter of three axes as a matrix, which is what weights are rounded and packed as."""
    if not t.is_weight(argument):
        raise ExportError("the matrices of experts are computed by the model", where=argument.name)
    experts, *sizes = (int(d) for d in argument.meta["val"].shape)
    rows, columns = sizes[::-1] if transform == "stack-transpose" else sizes
    shape = (experts * rows, columns)
    return t.builder.parameter(t.lifted[argument.name], shape, ir.DataType.FLOAT, transform)


HANDLERS: dict[str, Handler] = {"lepton.experts": _experts}
