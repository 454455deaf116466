"""Inputs of fp8 linear layers rounded to fp8 (E4M3), for TensorRT.

Before   MatMul(x, Transpose(DequantizeLinear<axis=0>(W_q FLOAT8E4M3FN, W_scale)))
After    the same of DequantizeLinear(QuantizeLinear(x, s, 0), s, 0)
Refuses  see ``_activations``: no calibration, an embedding table
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.quant._activations import QuantizeActivations
from lepton_passes.quant.ranges import InputRange

__all__ = ["ActivationFp8"]


class ActivationFp8(QuantizeActivations):
    """Round inputs of fp8 linear layers to fp8."""

    name = "activation-fp8"
    summary = "Activations of fp8 layers in E4M3, static scales from a sample"
    dtype = ir.DataType.FLOAT8E4M3FN
    tolerances = {  # noqa: RUF012  # read only
        "fp32": CLOSE,
        "int8": Tolerance(error=0.2, cosine=0.98),
        "int4": Tolerance(error=0.2, cosine=0.98),
    }

    def scale(self, seen: InputRange) -> float:
        return seen.fp8_scale()
