"""Activations that have a number or a form of their own; plain ones stand in ``elementwise.py``."""

from __future__ import annotations

import onnx_ir as ir
from torch import fx

from .core import Handler, Translator

__all__ = ["HANDLERS"]


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


def _elu(t: Translator, node: fx.Node) -> ir.Value:
    if len(node.args) > 2:
        raise ValueError("with scales")
    alpha = {"alpha": float(t.arg(node, 1, "alpha", 1.0))}
    return t.builder.op("Elu", [t.value(node.args[0])], alpha, at=t.path(node))


def _celu(t: Translator, node: fx.Node) -> ir.Value:
    alpha = {"alpha": float(t.arg(node, 1, "alpha", 1.0))}
    return t.builder.op("Celu", [t.value(node.args[0])], alpha, at=t.path(node))


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


def _leaky_relu(t: Translator, node: fx.Node) -> ir.Value:
    slope = float(t.arg(node, 1, "negative_slope", 0.01))
    return t.builder.op("LeakyRelu", [t.value(node.args[0])], {"alpha": slope}, at=t.path(node))


HANDLERS: dict[str, Handler] = {
    "aten.gelu": _gelu,
    "aten.silu": _silu,
    "aten.elu": _elu,
    "aten.celu": _celu,
    "aten.softplus": _softplus,
    "aten.log_sigmoid": _log_sigmoid,
    "aten.leaky_relu": _leaky_relu,
}
