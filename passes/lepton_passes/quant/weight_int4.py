"""Weights in 4 bits, one scale for each group of 32, 64 or 128 columns.

    Before   MatMul(x, Transpose(W))
    After    MatMul(x, Transpose(DequantizeLinear<axis=1, block_size=32>(W_q INT4, W_scale)))
    Refuses  columns that are no multiple of 16; a weight that another op reads too; an embedding
             table of few rows.

A group that does not divide the columns is halved until it does.
"""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.quant._rows import QuantizedRows
from lepton_passes.quant.scales import quantize_int4
from lepton_passes.quant.weights import QuantizeWeights, Rows

__all__ = ["WeightInt4", "group_of"]

DEFAULT_GROUP = 32
LEAST_GROUP = 16


def group_of(columns: int, group: int | None) -> int | None:
    """Columns that share a scale where ``group`` do by choice; ``None`` where none divides them."""
    size = group or DEFAULT_GROUP
    while size > LEAST_GROUP and columns % size:
        size //= 2
    return size if columns % size == 0 else None


class WeightInt4(QuantizeWeights):
    """Store weights in 4 bits, rounded to nearest."""

    name = "weight-int4"
    summary = "Weights in 4 bits, to nearest, a scale for each group of columns"
    bits = 4
    dtype = ir.DataType.INT4
    tolerances = {  # noqa: RUF012  # ClassVar of the base
        "fp32": CLOSE,
        "int8": CLOSE,
        "int4": Tolerance(error=0.5, cosine=0.85),
    }

    def group_for(self, columns: int, group: int | None) -> int | None:
        return group_of(columns, group)

    def refuses(self, columns: int, group: int | None) -> str | None:
        return None if group else f"{columns} columns are no multiple of {LEAST_GROUP}"

    def quantized(self, tensor: ir.TensorProtocol, group: int | None) -> Rows:
        assert group is not None
        rows, columns = (int(d) for d in tensor.shape.numpy())
        return QuantizedRows(tensor, partial(quantize_int4, group=group), (rows, columns // group))
