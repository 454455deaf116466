"""Lower linear layers to the kernels of onnxruntime.

    plain    MatMul(x, Transpose(W))            ->  FusedMatMul<transB>(x, W)
    8 bits   MatMul(x, Transpose(Dequantize..)) ->  DynamicQuantizeMatMul(x, W_q, scale, bias)
                                                or  MatMulNBits<bits=8>(x, W_q, scale, bias)
    4 bits   MatMul(x, Transpose(Dequantize..)) ->  MatMulNBits<bits=4>(x, W_q, scale, bias)
    zeros    MatMul(x, Transpose(Dequantize..)) ->  MatMulNBits(x, W_q, scale, zero points, bias)

Plain weights keep the layout of the checkpoint: the kernel packs either layout alike, nothing is
transposed at build time, and a tied table stays shared. A quantized layer takes the bias along.

DynamicQuantizeMatMul is the faster kernel in 8 bits, but rounds all activations of a call with one
scale; MatMulNBits has a scale for each block. Encoders bear the first. Decoders do not: a few
activations are hundreds of times larger than the rest (Gemma 3 270M: perplexity +6.7 % against
+0.9 % for rounding the weights alone). So models with a cache default to MatMulNBits, and so does a
weight that is an embedding table too, whose bytes both then share. GPUs have MatMulNBits alone.
Refuses: 8 bits in MatMulNBits with columns that are no multiple of 16; groups that it has no blocks
for; fp8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import CLOSE, LeptonPass, Tolerance
from lepton_passes.linear import Linear, linears, lookups, scale_type
from lepton_passes.lowering.ort.choices import Choices
from lepton_passes.lowering.ort.packing import block_of, nbits, scales_and_zeros
from lepton_passes.match import bias_of, is_decoder, largest_block
from lepton_passes.tensors import transposed

__all__ = ["ROUNDED", "Kernel", "LowerLinear", "blocked_kernel", "default_kernel"]

Kernel = Literal["dynamic", "nbits"]

ROUNDED = {
    "fp32": CLOSE,
    "int8": Tolerance(error=0.1, cosine=0.99),
    "int4": Tolerance(error=0.1, cosine=0.99),
}
"""What layers may move whose kernels round activations."""


def default_kernel(rows: int, columns: int, tied: bool, decoder: bool) -> Kernel:
    """Kernel for a weight of 8 bits when nothing was measured.

    DynamicQuantizeMatMul rounds its input with one scale for the whole tensor. What a narrowing
    layer reads (the output of an activation function, in a feed-forward block) and the residual
    stream of a decoder have outliers that such a scale does not survive; MatMulNBits has a scale
    for each block of each row.
    """
    blocked = tied or decoder or columns > rows
    return "nbits" if blocked and largest_block(columns) is not None else "dynamic"


def blocked_kernel(rows: int, columns: int, tied: bool, decoder: bool) -> Kernel:
    """MatMulNBits for every weight: where no kernel rounds activations."""
    return "nbits"


class LowerLinear(LeptonPass):
    """Lower linear layers to FusedMatMul, DynamicQuantizeMatMul and MatMulNBits.

    Args:
        kernel: kernel for a weight of 8 bits by (rows, columns, also an embedding table, in a
            decoder).
        accuracy_level: of MatMulNBits; 4 computes in int8, 1 in fp32.
        choices: goes before ``kernel`` where there was something to choose.
    """

    name = "lower-linear"
    summary = "Linear layers to the kernels of onnxruntime"
    changes_numbers = True
    counts_as = "linear"
    tolerances = ROUNDED

    def __init__(
        self,
        kernel: Callable[[int, int, bool, bool], Kernel] = default_kernel,
        accuracy_level: int = 4,
        choices: Choices | None = None,
    ) -> None:
        super().__init__()
        self._choices = choices
        self._kernel = kernel
        self._accuracy_level = accuracy_level

    def rewrite(self, body: Body) -> None:
        for linear in linears(body):
            if linear.weight.plain:
                self._plain(body, linear)
            elif linear.weight.dtype == ir.DataType.FLOAT8E4M3FN:
                self.refuse(body, linear.node, "there is no kernel for weights in fp8")
            elif linear.weight.bits == 8 and self._kernel_of(body, linear) == "dynamic":
                self._dynamic(body, linear)
            else:
                self._nbits(body, linear)

    def _kernel_of(self, body: Body, linear: Linear) -> Kernel:
        weight = linear.weight
        if weight.group is not None or scale_type(body, weight) != ir.DataType.FLOAT:
            return "nbits"  # the only one with scales by block, and with half precision
        choice = self._choices.of(body, linear) if self._choices is not None else None
        if choice is not None and choice.kernel != "native":
            return choice.kernel
        decoder = is_decoder(body.model)
        return self._kernel(weight.rows, weight.columns, bool(lookups(weight)), decoder)

    def _plain(self, body: Body, linear: Linear) -> None:
        inputs = [linear.x, linear.weight.values[0]]
        node = body.emit(linear.node, "FusedMatMul", inputs, {"transB": 1}, domain=MICROSOFT)
        body.replace(linear.y, node.outputs[0])
        self.fire(body)

    def _dynamic(self, body: Body, linear: Linear) -> None:
        q, scale = linear.weight.values
        turned = body.derive([q], f"{q.name}_kn", lambda t: transposed(t[0]))
        self._emit(body, linear, "DynamicQuantizeMatMul", [linear.x, turned, scale, None], {})

    def _nbits(self, body: Body, linear: Linear) -> None:
        weight, block = linear.weight, block_of(linear.weight)
        if isinstance(block, str):
            self.refuse(body, linear.node, block)
            return
        q = weight.values[0]
        shape = (weight.rows, weight.columns // block, block * weight.bits // 8)
        packed = body.derive([q], f"{q.name}_blocks", lambda t: nbits(t[0], shape))
        attributes = {
            "K": weight.columns,
            "N": weight.rows,
            "bits": weight.bits,
            "block_size": block,
            "accuracy_level": self._accuracy_level,
        }
        inputs = [linear.x, packed, *scales_and_zeros(body, weight, block), None]
        self._emit(body, linear, "MatMulNBits", inputs, attributes)

    def _emit(
        self,
        body: Body,
        linear: Linear,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, int],
    ) -> None:
        bias = bias_of(body, linear.y, linear.weight.rows)
        old, extra = (linear.y, None) if bias is None else bias
        before = linear.node if bias is None else old.producer()
        assert before is not None
        node = body.emit(before, op_type, [*inputs, extra], attributes, domain=MICROSOFT)
        body.replace(old, node.outputs[0])
        self.fire(body)
