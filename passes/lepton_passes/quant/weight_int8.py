"""Weights in 8 bits, one scale for each output row.

Before   MatMul(x, Transpose(W))
After    MatMul(x, Transpose(DequantizeLinear<axis=0>(W_q INT8 (N, K), W_scale (N,))))
Refuses  a weight that another op reads too; an embedding table of few rows.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.quant._rows import QuantizedRows
from lepton_passes.quant._scales import quantize_int8
from lepton_passes.quant._weights import QuantizeWeights

__all__ = ["WeightInt8"]


class WeightInt8(QuantizeWeights):
    """Store weights in 8 bits, rounded to nearest."""

    name = "weight-int8"
    summary = "Weights in 8 bits, a scale for each output row"
    bits = 8
    dtype = ir.DataType.INT8
    tolerances = {  # noqa: RUF012  # ClassVar of the base
        "fp32": CLOSE,
        "int8": Tolerance(error=0.05, cosine=0.995),
        "int4": Tolerance(error=0.05, cosine=0.995),
    }

    def group_for(self, columns: int, group: int | None) -> int | None:
        return None

    def refuses(self, columns: int, group: int | None) -> str | None:
        return None

    def quantized(self, tensor: ir.TensorProtocol, group: int | None) -> QuantizedRows:
        return QuantizedRows(tensor, quantize_int8, (int(tensor.shape.numpy()[0]),))
