"""Check that onnxruntime's CUDA provider runs all that computes with numbers.

What the provider has no kernel for, onnxruntime puts on the CPU without a word: each such node
costs two copies and a wait. Changes nothing; each refusal is a node by name:

    an op, or its form at the opset of the graph, or its type, without a CUDA kernel
    DynamicQuantizeMatMul, which only the CPU has
    GroupQueryAttention with what its CUDA kernel refuses when it runs
    mixtures of experts that MoE does not know, whose bodies would run on the CPU in large part
    attention over another layer's cache that was not lowered: its body would read a buffer to its
    end
    DequantizeLinear of a whole weight, which would be computed again in each call

Integers are not looked at: onnxruntime keeps lengths and shapes on the CPU by choice. Nor are
branches, and functions of an imported model.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, LAYER_DOMAIN, MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import fill_types
from lepton_passes.lowering.ort._cuda_kernels import computes_in, kernel_for
from lepton_passes.lowering.ort.legal_ort_cpu import dequantizes_weight
from lepton_passes.match import is_op, sizes_of

__all__ = ["LegalOrtCuda"]

# They are made once, on the device that reads them.
_PLACED = frozenset(["Constant"])
# Where they go is decided on the host; the nodes of their branches run where they have kernels.
_WITH_BRANCHES = frozenset(["If", "Loop", "Scan"])
_NEWEST = 24
# Ops of the dialect that no pass lowered, whose bodies would run on the CPU in large part.
_LEFT = {
    "Experts": "experts with such a gate run for ort-cpu alone",
    "SharedAttention": "attention over another layer's cache was not lowered, and would read a "
    "buffer to its end",
}


class LegalOrtCuda(LeptonPass):
    """Check that the CUDA provider runs all that computes with numbers."""

    name = "legal-ort-cuda"
    summary = "Every op on numbers has a kernel on the GPU"
    must_not_refuse = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        fill_types(model)
        self._opset = model.graph.opset_imports.get("", _NEWEST)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes():
            reason = _illegal(body, node, self._opset)
            if reason is not None:
                self.refuse(body, node, reason)


def _illegal(body: Body, node: ir.Node, opset: int) -> str | None:
    if node.domain == LAYER_DOMAIN or is_op(node, *_PLACED, *_WITH_BRANCHES):
        return None
    if is_op(node, *_LEFT, domain=DIALECT):
        return _LEFT[node.op_type]
    if node.op_identifier() in body.model.functions:
        return None  # its body moves numbers: Positions, KeepLast and their like
    if node.domain not in ("", MICROSOFT):
        return f"the domain {node.domain} has no kernels, and the model has no body for it"
    if node.op_type == "DynamicQuantizeMatMul":
        return "the GPU has no such kernel: take quantize: int4, or compute: fp16 without quantize"
    if dequantizes_weight(body, node):
        return "a whole weight would be dequantized in each call"
    dtype = computes_in(node)
    if dtype is None:
        return None
    reason = kernel_for(node, opset, dtype)
    if reason is None and node.op_type == "GroupQueryAttention":
        return _refused_attention(body, node)
    return reason


def _refused_attention(body: Body, node: ir.Node) -> str | None:
    """What the CUDA kernel of GroupQueryAttention has no code for."""
    given = [*node.inputs, *[None] * 14]
    if given[10] is not None:
        return "its CUDA kernel takes no attention_bias"
    if len([out for out in node.outputs if out.name]) > 3:
        return "its CUDA kernel gives no scores"
    past = given[3]
    sizes = sizes_of(body, past) if past is not None else None
    size = sizes[-1] if sizes else None
    if isinstance(size, int) and size % 8:
        return f"its CUDA kernel takes heads of a multiple of 8, these have {size}"
    return None
