"""Weights of 4 bits that are rounded by what a sample says of their inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weights import Choose, parameter_names

__all__ = ["Sampled"]


class Sampled(WeightInt4):
    """Base of passes that decline a weight whose input was not seen.

    Args:
        choose: format of each parameter; left out, this format for all.
        seen: what is known of the input of a layer, by the name of its weight. A value is asked for
            once, when the weight is first read.
    """

    def __init__(
        self, choose: Choose | None = None, seen: Mapping[str, np.ndarray] | None = None
    ) -> None:
        super().__init__(choose)
        self.seen: Mapping[str, np.ndarray] = seen if seen is not None else {}
        self._names: dict[int, str] = {}

    def declines(self, body: Body, value: ir.Value) -> str | None:
        names = parameter_names(body, value)
        if any(name not in self.seen for name in names):
            return "its input was not calibrated"
        for name, tensor in zip(names, body.weights(value) or [], strict=True):
            self._names[id(tensor)] = name
        return None

    def name_of(self, tensor: ir.TensorProtocol) -> str:
        """The weight that a tensor was taken from, one that was not declined."""
        return self._names[id(tensor)]
