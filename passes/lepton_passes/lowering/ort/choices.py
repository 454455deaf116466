"""Which kernel a quantized linear layer gets, where somebody measured.

Layers that a kernel cannot tell apart are one :class:`Layer`. The pass that comes first asks for
all of a model at once; both that lower linear layers go by the answer. What is not in it gets what
it would have got without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from lepton_passes.body import Body, bodies
from lepton_passes.linear import Linear, linears, lookups
from lepton_passes.lowering.ort.activations import following
from lepton_passes.match import bias_of, is_decoder

__all__ = ["Choice", "Choices", "Choose", "Layer", "Tactic"]

Tactic = Literal["native", "nbits", "dynamic"]
"""A kernel of ours, MatMulNBits or DynamicQuantizeMatMul."""


@dataclass(frozen=True)
class Layer:
    """What two quantized linear layers have in common when one kernel is as good for both.

    Attributes:
        columns: length of a dot product.
        rows: numbers that come out.
        bits: of a weight, 4 or 8.
        group: columns that share a scale; ``None`` where a row has one.
        activation: the function behind it, as ``lepton_plugins.linear.spec.ACTIVATIONS`` counts.
        gated: half of the result is a gate of the other half.
        tied: the weight is an embedding table, too.
        decoder: the model has a cache of keys and values.
    """

    columns: int
    rows: int
    bits: int
    group: int | None = None
    activation: int = 0
    gated: int = 0
    tied: bool = False
    decoder: bool = False


@dataclass(frozen=True)
class Choice:
    """The kernel of a layer, and why it is not ours."""

    kernel: Tactic
    reason: str = ""


Choose = Callable[[Sequence[Layer]], Mapping[Layer, Choice]]
"""Chooses for some layers, or all of them."""


class Choices:
    """What was chosen for one model, filled while passes run.

    Args:
        choose: is asked once, for all layers of the model.
    """

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._chosen: Mapping[Layer, Choice] = {}

    def ask(self, model: ir.Model) -> None:
        """Let each quantized layer be chosen for."""
        found = {
            _layer(body, linear): None
            for body in bodies(model)
            for linear in linears(body)
            if linear.weight.dtype in (ir.DataType.INT4, ir.DataType.INT8)
            and not linear.weight.floats
        }
        self._chosen = self._choose(list(found))

    def of(self, body: Body, linear: Linear) -> Choice | None:
        """What was chosen for a quantized layer; ``None`` leaves it as it is."""
        if not self._chosen or linear.weight.shifted or linear.weight.floats:
            return None  # none of these was asked for
        return self._chosen.get(_layer(body, linear))


def _layer(body: Body, linear: Linear) -> Layer:
    weight = linear.weight
    bias = bias_of(body, linear.y, linear.weight.rows)
    then = following(body, linear.y if bias is None else bias[0])
    return Layer(
        columns=weight.columns,
        rows=weight.rows,
        bits=weight.bits,
        group=weight.group,
        activation=then.activation,
        gated=then.gated,
        tied=bool(lookups(weight)),
        decoder=is_decoder(body.model),
    )
