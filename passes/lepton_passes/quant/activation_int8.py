"""Inputs of int8 linear layers rounded to int8, for TensorRT.

    Before   MatMul(x, Transpose(DequantizeLinear<axis=0>(W_q INT8, W_scale)))
    After    the same of DequantizeLinear(QuantizeLinear(x, s, 0), s, 0)
    Refuses  see ``_activations``: scales by block, no calibration, an embedding table

The largest magnitude in the sample becomes 127, so that nothing is clipped. ``smooth-inputs`` in
front of it makes that a small scale.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.quant._activations import QuantizeActivations
from lepton_passes.quant.ranges import InputRange

__all__ = ["ActivationInt8"]


class ActivationInt8(QuantizeActivations):
    """Round inputs of int8 linear layers to int8."""

    name = "activation-int8"
    summary = "Activations of int8 layers in 8 bits, static scales from a sample"
    dtype = ir.DataType.INT8
    tolerances = {  # noqa: RUF012  # read only
        "fp32": CLOSE,
        "int8": Tolerance(error=0.1, cosine=0.99),
        "int4": Tolerance(error=0.1, cosine=0.99),
    }

    def scale(self, seen: InputRange) -> float:
        return seen.int8_scale()
