"""Weights in fp8 (E4M3), one scale for each output row.

    Before   MatMul(x, Transpose(W))
    After    MatMul(x, Transpose(DequantizeLinear<axis=0>(W_q FLOAT8E4M3FN (N, K), W_scale (N,))))
    Refuses  a weight that another op reads too; embedding tables stay as they are

The largest weight of a row becomes 448, the largest number of the format. With ``activation-fp8``
behind it TensorRT multiplies in fp8, from compute capability 8.9 on.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.quant._rows import QuantizedRows
from lepton_passes.quant.ranges import FP8_MOST
from lepton_passes.quant.weights import Choose, QuantizeWeights

__all__ = ["WeightFp8", "quantize_fp8"]

_TINY = np.float32(1e-30)


class WeightFp8(QuantizeWeights):
    """Store weights in fp8, rounded to nearest.

    Args:
        choose: (8, None) for each parameter that goes to fp8; left out, all but tables.
    """

    name = "weight-fp8"
    summary = "Weights in fp8 E4M3, a scale for each output row"
    bits = 8
    dtype = ir.DataType.FLOAT8E4M3FN
    tolerances = {  # noqa: RUF012  # read only
        "fp32": CLOSE,
        "int8": Tolerance(error=0.2, cosine=0.98),
        "int4": Tolerance(error=0.2, cosine=0.98),
    }

    def __init__(self, choose: Choose | None = None) -> None:
        super().__init__(choose or (lambda _name, embedding: None if embedding else (8, None)))

    def group_for(self, columns: int, group: int | None) -> int | None:
        return None

    def refuses(self, columns: int, group: int | None) -> str | None:
        return None

    def quantized(self, tensor: ir.TensorProtocol, group: int | None) -> QuantizedRows:
        return QuantizedRows(tensor, quantize_fp8, (int(tensor.shape.numpy()[0]),))


def quantize_fp8(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One scale a row.

    Args:
        w: fp32 (rows, columns).

    Returns:
        float8_e4m3fn (rows, columns) and fp32 (rows,), the largest magnitude of a row at 448.
    """
    most = np.maximum(np.abs(w).max(axis=1), _TINY)
    scale = (most / np.float32(FP8_MOST)).astype(np.float32)
    # Beyond 448 the format has no number; a quotient may round there.
    scaled = np.clip(w / scale[:, None], -FP8_MOST, FP8_MOST)
    return scaled.astype(ml_dtypes.float8_e4m3fn), scale
