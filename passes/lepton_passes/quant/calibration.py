"""What the passes that round activations share: ranges from a sample, and the scales they chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from lepton_passes.body import Body, bodies
from lepton_passes.linear import Linear, linears
from lepton_passes.quant.ranges import InputRange

__all__ = ["Calibration", "Measure", "parameters_of", "unseen"]

Measure = Callable[[ir.Model], Mapping[str, InputRange]]
"""Runs a graph on a sample: range of the input of each linear layer, by the name of its weight."""


def parameters_of(body: Body, linear: Linear) -> list[str]:
    """Name of the layer's weight in the checkpoint, one for each call of the body.

    What passes before made of the weight (``W_q``, ``W:half``) goes by the name of ``W``.
    """
    arguments = body.arguments(linear.weight.values[0]) or []
    return [(value.name or "").removesuffix("_q").split(":")[0] for value in arguments]


def unseen(model: ir.Model) -> dict[str, InputRange]:
    """An empty range for each linear layer, whose scale is 1: for plans, which run nothing."""
    return {
        name: InputRange()
        for body in bodies(model)
        for linear in linears(body)
        for name in parameters_of(body, linear)
    }


@dataclass
class Calibration:
    """One calibration, filled while passes run.

    Attributes:
        measure: how ranges are found.
        ranges: range of the input of each linear layer, by the name of its weight.
        scales: the scale that a pass gave that input.
    """

    measure: Measure = unseen
    ranges: dict[str, InputRange] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
