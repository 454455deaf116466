"""Compute in fp32 what onnxruntime's CUDA provider has no kernel for in half precision.

    Before   values, places = TopK(x, k), in bfloat16
    After    values, places = TopK(Cast(x), k), in fp32;  Cast(values)

Choices and comparisons have kernels for fp32 and fp16, few of which know bfloat16: how the experts
of a mixture are chosen, for one. Numbers that are chosen stay what they were.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import HALVES, fill_types
from lepton_passes.lowering.ort._cuda_kernels import computes_in, kernel_for
from lepton_passes.lowering.ort.opset import OPSET

__all__ = ["LowerCudaTypes"]

FLOAT = ir.DataType.FLOAT


class LowerCudaTypes(LeptonPass):
    """Compute in fp32 what has a kernel for that alone."""

    name = "lower-cuda-types"
    summary = "fp32 where CUDA has no kernel for half precision"
    changes_numbers = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        fill_types(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes():
            if not node.domain and (half := _without_kernel(node)) is not None:
                self._widen(body, node, half)
                self.fire(body)

    def _widen(self, body: Body, node: ir.Node, half: ir.DataType) -> None:
        inputs = [_cast(body, node, v, FLOAT) if _is(v, half) else v for v in node.inputs]
        made = body.emit(
            node, node.op_type, inputs, dict(node.attributes), outputs=len(node.outputs)
        )
        for old, new in zip(node.outputs, made.outputs, strict=True):
            body.replace(old, _cast(body, node, new, half) if _is(old, half) else new)


def _without_kernel(node: ir.Node) -> ir.DataType | None:
    """The half precision that a node computes in, which has a kernel for fp32 instead."""
    if node.op_type in ("Cast", "Constant"):
        return None
    half = computes_in(node)
    if half not in HALVES or half is None or kernel_for(node, OPSET, half) is None:
        return None
    return half if kernel_for(node, OPSET, FLOAT) is None else None


def _is(value: ir.Value | None, dtype: ir.DataType) -> bool:
    return value is not None and value.dtype == dtype


def _cast(body: Body, before: ir.Node, value: ir.Value | None, dtype: ir.DataType) -> ir.Value:
    return body.emit(before, "Cast", [value], {"to": int(dtype)}).outputs[0]
