"""Compute the gate and the other half of a gated MLP with one linear layer.

    Before   Mul(act(x Wg), x Wu)
    After    g, u = Split(x [Wg; Wu]);  Mul(act(g), u)

``act`` is Gelu, Relu, Sigmoid, Tanh or x * Sigmoid(x).
Refuses: inputs, formats or biases that differ; a weight used twice.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.fusion._stack import Projection, projection, refuses, stack
from lepton_passes.linear import linears
from lepton_passes.match import made_by

__all__ = ["PackedGateUp"]

_ACTIVATIONS = ("Gelu", "Relu", "Sigmoid", "Tanh")


class PackedGateUp(LeptonPass):
    """Compute both halves of a gated MLP with one linear layer."""

    name = "packed-gate-up"
    summary = "One linear layer for both halves of a gated MLP"
    changes_numbers = True
    counts_as = "gate-up"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Mul"):
            made = {part.y: part for part in (projection(body, x) for x in linears(body))}
            pair = _pair(node, made)
            if pair is None:
                continue
            reason = refuses(pair)
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            name = pair[0].linear.weight.name.removesuffix(".weight")
            stack(body, pair, f"{name}.gate_up")
            self.fire(body)


def _pair(node: ir.Node, made: dict[ir.Value, Projection]) -> list[Projection] | None:
    """(gate, up) when one factor is a projection and the other an activation of one."""
    for gated, plain in (node.inputs, reversed(node.inputs)):
        gate = _gate(gated)
        if plain in made and gate in made and gate is not plain:
            return [made[gate], made[plain]]
    return None


def _gate(value: ir.Value | None) -> ir.Value | None:
    """What the activation that makes ``value`` is applied to."""
    activation = made_by(value, *_ACTIVATIONS)
    if activation is not None:
        return activation.inputs[0]
    product = made_by(value, "Mul")
    if product is None:
        return None
    for x, other in (product.inputs, reversed(product.inputs)):
        sigmoid = made_by(other, "Sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] is x:
            return x
    return None
