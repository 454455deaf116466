"""Weights in 8 bits, one scale for each output row, or in decoders for each block of a row.

Before   MatMul(x, Transpose(W))
After    MatMul(x, Transpose(DequantizeLinear<axis=0>(W_q INT8 (N, K), W_scale (N,))))
         in a decoder <axis=1, block_size=64>(W_q, W_scale (N, K / 64)), or 128: its kernel reads
         scales by block anyway, and they cost a third of the error
Refuses  a weight that another op reads too; an embedding table of few rows; columns of a linear
         layer that are no multiple of 16, where the target reads weights by block alone; in a
         decoder those that only DynamicQuantizeMatMul would take, which has one scale for all
         activations of a call: scores of a text would depend on the texts beside it.
"""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import CLOSE, Tolerance
from lepton_passes.linear import weight_of
from lepton_passes.match import BLOCK, is_decoder, is_op, largest_block
from lepton_passes.quant._rows import QuantizedRows
from lepton_passes.quant.scales import quantize_int8, quantize_int8_blocks
from lepton_passes.quant.weights import Choose, QuantizeWeights

__all__ = ["WeightInt8"]


SMALLEST = 16
"""Columns of the smallest block."""


class WeightInt8(QuantizeWeights):
    """Store weights in 8 bits, rounded to nearest.

    Args:
        choose: format of each parameter; left out, this format for all.
        longest: block of a decoder's scales, at most; 0 where the target has no kernels for blocks.
        blocked: the target has no kernels for linear layers but those that read blocks of columns.
        multiple: columns of a decoder's linear layers come in multiples of it.
    """

    name = "weight-int8"
    summary = "Weights in 8 bits, a scale for each output row, or block of it"
    bits = 8
    dtype = ir.DataType.INT8
    tolerances = {  # noqa: RUF012  # ClassVar of the base
        "fp32": CLOSE,
        "int8": Tolerance(error=0.05, cosine=0.995),
        "int4": Tolerance(error=0.05, cosine=0.995),
    }

    def __init__(
        self,
        choose: Choose | None = None,
        *,
        longest: int = BLOCK,
        blocked: bool = False,
        multiple: int = 1,
    ) -> None:
        super().__init__(choose)
        self._blocked, self._multiple = blocked, multiple
        self._longest = longest
        self._decoder = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._decoder = is_decoder(model)
        return super().call(model)

    def group_for(self, columns: int, group: int | None) -> int | None:
        return largest_block(columns, self._longest) if self._decoder else None

    def refuses(self, columns: int, group: int | None) -> str | None:
        return None

    def declines(self, body: Body, value: ir.Value) -> str | None:
        weight = weight_of(body, value)
        multiple = SMALLEST if self._blocked else self._multiple if self._decoder else 1
        if weight is None or weight.columns % multiple == 0:
            return None
        multiplied = any(is_op(use.node, "Transpose") for use in value.uses())
        return f"{weight.columns} columns are no multiple of {multiple}" if multiplied else None

    def quantized(self, tensor: ir.TensorProtocol, group: int | None) -> QuantizedRows:
        rows, columns = (int(d) for d in tensor.shape.numpy())
        if group is None:
            return QuantizedRows(tensor, quantize_int8, (rows,))
        quantize = partial(quantize_int8_blocks, group=group)
        return QuantizedRows(tensor, quantize, (rows, columns // group))
