"""What follows a linear layer that a kernel of ours computes along with it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.match import input_at, ints_of, is_op, only_reader
from lepton_plugins.linear.spec import ACTIVATIONS, TILE

__all__ = ["Following", "following"]


@dataclass(frozen=True)
class Following:
    """The value that a layer may give instead, and the attributes that make it do so."""

    value: ir.Value
    activation: int = 0
    gated: int = 0


def following(body: Body, y: ir.Value) -> Following:
    """An activation function, or a gate: ``activation(y[: N / 2]) * y[N / 2 :]``."""
    reader = only_reader(y)
    activation = _activation(reader)
    if reader is not None and activation is not None:
        return Following(reader.outputs[0], activation)
    gate = _gate(body, reader, y) if reader is not None and is_op(reader, "Split") else None
    return gate or Following(y)


def _activation(node: ir.Node | None) -> int | None:
    if node is None:
        return None
    if is_op(node, "Gelu"):
        approximate = node.attributes.get_string("approximate", "none")
        return ACTIVATIONS["gelu_tanh" if approximate == "tanh" else "gelu"]
    if is_op(node, "QuickGelu", domain=MICROSOFT):
        return ACTIVATIONS["silu"] if node.attributes.get_float("alpha", 1.702) == 1 else None
    return None


def _gate(body: Body, split: ir.Node, y: ir.Value) -> Following | None:
    sizes = ints_of(body, input_at(split, 1))
    if sizes is None or len(sizes) != 2 or sizes[0] != sizes[1] or sizes[0] % TILE:
        return None
    if split.attributes.get_int("axis", 0) not in (-1, len(y.shape or ()) - 1):
        return None
    gate, let = split.outputs
    node = only_reader(gate)
    activation = _activation(node)
    if node is None or activation is None:
        return None
    product = only_reader(node.outputs[0], "Mul")
    if product is None or only_reader(let) is not product:
        return None
    if {id(value) for value in product.inputs} != {id(node.outputs[0]), id(let)}:
        return None
    return Following(product.outputs[0], activation, gated=1)
