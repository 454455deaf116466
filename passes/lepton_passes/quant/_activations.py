"""Round what quantized linear layers read, with scales that a sample gave.

    Before   MatMul(x, Transpose(DequantizeLinear(W_q, W_scale)))
    After    MatMul(DequantizeLinear(QuantizeLinear(x, s, 0), s, 0), Transpose(...))

Explicit and symmetric, one scalar ``s`` for each input, a call of a layer its own: the form that
TensorRT runs in the arithmetic of the quantized type, and that any runtime runs in fp32. Layers
that read the same input share the pair.
Refuses: a weight in another format, or with scales by block; an input that was not calibrated; a
weight that is an embedding table too, whose products are the logits.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.linear import Linear, linears
from lepton_passes.match import made_by
from lepton_passes.quant.calibration import Calibration, parameters_of
from lepton_passes.quant.ranges import InputRange, readable
from lepton_passes.quant.weights import is_table

__all__ = ["QuantizeActivations"]


class QuantizeActivations(LeptonPass):
    """Base of the formats of activations.

    Args:
        calibration: the ranges; the scales that follow are written there.
    """

    dtype: ClassVar[ir.DataType]
    changes_numbers = True

    def __init__(self, calibration: Calibration | None = None) -> None:
        super().__init__()
        self._calibration = calibration if calibration is not None else Calibration()

    @abc.abstractmethod
    def scale(self, seen: InputRange) -> float:
        """The scale of an input."""

    def rewrite(self, body: Body) -> None:
        by_input: dict[ir.Value, list[Linear]] = {}
        for linear in linears(body):
            if linear.weight.plain:
                continue
            reason = self._refuses(body, linear)
            if reason is not None:
                self.refuse(body, linear.node, reason)
            else:
                by_input.setdefault(linear.x, []).append(linear)
        for x, users in by_input.items():
            self._round(body, x, users)

    def _refuses(self, body: Body, linear: Linear) -> str | None:
        weight = linear.weight
        if weight.dtype != self.dtype:
            return f"its weight is stored as {weight.dtype.name}"
        if weight.group is not None:
            return "its weight has scales by block"
        turned = made_by(linear.node.inputs[1], "Transpose")
        assert turned is not None
        stored = turned.inputs[0]
        if stored is not None and is_table(stored):
            return "its weight is an embedding table too"
        if any(name not in self._calibration.ranges for name in parameters_of(body, linear)):
            return "its input was not calibrated"
        return None

    def _round(self, body: Body, x: ir.Value, users: Sequence[Linear]) -> None:
        order = {node: index for index, node in enumerate(body.graph)}
        before = min((user.node for user in users), key=order.__getitem__)
        by_user = [parameters_of(body, user) for user in users]
        scales = [self._initializer(body, names) for names in zip(*by_user, strict=True)]
        scale = body.lift(f"{users[0].weight.name}:input_scale", scales)
        zero = body.constant_node(before, np.zeros((), dtype=self.dtype.numpy()))
        rounded = body.emit(before, "QuantizeLinear", [x, scale, zero])
        back = body.emit(before, "DequantizeLinear", [rounded.outputs[0], scale, zero])
        made = back.outputs[0]
        made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), x.shape
        for user in users:
            user.node.replace_input_with(0, made)
            self.fire(body)

    def _initializer(self, body: Body, names: Sequence[str]) -> ir.Value:
        """The scale of one call as a scalar of the main graph; ``names`` read the same input."""
        ranges = self._calibration.ranges
        scale = readable(max(self.scale(ranges[name]) for name in names))
        self._calibration.scales.update(dict.fromkeys(names, scale))
        name = f"{names[0]}:input_scale"
        return body.initializer(name, ir.tensor(np.float32(scale), name=name))
