"""Mixtures of experts in the neutral dialect, and their matrices, plain or quantized.

y = ai.lepton::Experts(x, indices, shares, gate_up, down, gate_up_bias, down_bias)

gate_up (experts * 2 inner, width), of experts without a gate (experts * inner, width), and down
(experts * width, inner) are weights as those of linear layers are (``linear.py``): the matrices of
all experts one under the other, so that what rounds weights by row or by group of columns needs to
know nothing of experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.linear import Weight, weight_of

__all__ = [
    "DOWN",
    "GATE_UP",
    "SWISH",
    "Experts",
    "experts_in",
    "partner_of",
    "scorers",
    "shared_columns",
]

GATE_UP, DOWN = 3, 4
SWISH = "swish"
"""Activation of the gate in SwiGLU."""


@dataclass(frozen=True)
class Experts:
    """One node and its two weights."""

    node: ir.Node
    gate_up: Weight
    down: Weight

    @property
    def count(self) -> int:
        """How many experts there are."""
        return self.node.attributes.get_int("experts")

    @property
    def activation(self) -> str:
        """What the gate goes through, or up where there is none: ``swish``, ``gelu``,
        ``gelu_tanh``, ``relu`` or ``relu2``, its square."""
        return self.node.attributes.get_string("activation", SWISH)

    @property
    def gated(self) -> bool:
        """Whether half of what an expert projects is a gate of the other half."""
        return self.node.attributes.get_int("gated", 1) == 1

    @property
    def in_turns(self) -> bool:
        """Whether rows of gate and up take turns, as in GPT-OSS."""
        return self.node.attributes.get_int("interleaved", 0) == 1

    @property
    def biases(self) -> tuple[ir.Value | None, ir.Value | None]:
        """Those of gate_up and of down, where it has any."""
        first, second, *_ = *self.node.inputs[5:7], None, None
        return first, second

    @property
    def quantized(self) -> bool:
        """Whether at least one of the weights is."""
        return not (self.gate_up.plain and self.down.plain)

    @property
    def alike(self) -> bool:
        """Whether both weights have one format."""
        first, second = (w.kind[1:] for w in (self.gate_up, self.down))
        return first == second


def experts_in(body: Body) -> list[Experts]:
    """All mixtures of a body whose weights are constants, in order."""
    found = []
    for node in _nodes(body):
        gate_up, down = (weight_of(body, node.inputs[i]) for i in (GATE_UP, DOWN))
        if gate_up is not None and down is not None:
            found.append(Experts(node, gate_up, down))
    return found


def shared_columns(body: Body, value: ir.Value) -> int | None:
    """What a group of columns must divide in a weight of experts: both of a mixture have one
    format, for kernels know no others. ``None`` for a weight that is not of experts."""
    mixture = _mixture_of(body, value)
    return None if mixture is None else gcd(mixture.gate_up.columns, mixture.down.columns)


def partner_of(body: Body, value: ir.Value) -> ir.Value | None:
    """The other matrix of the experts that a weight is of; ``None`` for one that is not of any."""
    mixture = _mixture_of(body, value)
    if mixture is None:
        return None
    first, second = mixture.gate_up.values[0], mixture.down.values[0]
    return second if value is first else first


def scorers(body: Body) -> set[ir.Node]:
    """The MatMul nodes that experts are chosen by."""
    found: set[ir.Node] = set()
    pending = [node.inputs[1] for node in _nodes(body)]
    seen: set[ir.Value | None] = set()
    while pending:
        value = pending.pop()
        node = value.producer() if value is not None and value not in seen else None
        seen.add(value)
        if node is not None and node.op_type == "MatMul":
            found.add(node)
        elif node is not None:
            pending += node.inputs
    return found


def _mixture_of(body: Body, value: ir.Value) -> Experts | None:
    for mixture in experts_in(body):
        if value in (mixture.gate_up.values[0], mixture.down.values[0]):
            return mixture
    return None


def _nodes(body: Body) -> list[ir.Node]:
    return body.nodes("Experts", domain=DIALECT)
