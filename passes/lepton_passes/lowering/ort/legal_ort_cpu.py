"""Check that onnxruntime's CPU provider runs every op, and that none is a trap.

Changes nothing; each refusal is an op that cannot be built, by name:

    an op of a domain without kernels and without a body in the model
    an op of com.microsoft that has no CPU kernel
    DequantizeLinear of a whole weight, which would be computed again in each call
"""

from __future__ import annotations

from functools import cache

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LegalOrtCpu", "dequantizes_weight"]

# fmt: off
CONTRIB = frozenset({
    "BiasGelu", "DynamicQuantizeMatMul", "FastGelu", "FusedMatMul", "GatherBlockQuantized",
    "GroupQueryAttention", "MatMulNBits", "MoE", "MultiHeadAttention", "QMoE", "QuickGelu",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
})
# fmt: on
PLAIN = frozenset({"AzureExecutionProvider", "CPUExecutionProvider"})
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
OURS = frozenset(
    {
        "CausalConv",
        "GroupQueryAttention",
        "LinearAttention",
        "MultiHeadAttention",
        "Normalization",
        "QuantizedEmbedding",
        "QuantizedExperts",
        "QuantizedLinear",
        "SkipNormalization",
    }
)

LARGE = 1 << 16


class LegalOrtCpu(LeptonPass):
    """Check that onnxruntime's CPU provider runs every op."""

    name = "legal-ort-cpu"
    summary = "Every op has a kernel on the CPU"
    must_not_refuse = True

    def rewrite(self, body: Body) -> None:
        for node in body.nodes():
            reason = _illegal(body, node)
            if reason is not None:
                self.refuse(body, node, reason)


def dequantizes_weight(body: Body, node: ir.Node) -> bool:
    """Whether the node is a DequantizeLinear that no pass lowered, of more than a vector."""
    if node.op_type != "DequantizeLinear":
        return False
    tensors = body.weights(node.inputs[0])
    return tensors is not None and len(tensors) > 0 and tensors[0].size > LARGE


@cache
def _kernels() -> frozenset[str]:
    """Contributed ops with a CPU kernel: those of the onnxruntime at hand, else those we emit.

    One with other providers is asked for the ops that it knows: asked for kernels, onnxruntime-gpu
    1.31 starts CUDA, and crashes where its libraries are not loaded yet.
    """
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as runtime

        if set(runtime.get_available_providers()) - PLAIN:
            schemas = runtime.get_all_operator_schema()
            return CONTRIB | {s.name for s in schemas if s.domain == "com.microsoft"}
        known = runtime.get_all_opkernel_def()
    except (ImportError, AttributeError):
        return CONTRIB
    cpu = [k for k in known if k.provider == "CPUExecutionProvider"]
    return CONTRIB | {k.op_name for k in cpu if k.domain == "com.microsoft"}


def _illegal(body: Body, node: ir.Node) -> str | None:
    if node.op_identifier() in body.model.functions:
        return None
    if node.domain == "com.microsoft":
        return None if node.op_type in _kernels() else "it has no CPU kernel"
    if node.domain == CPU_DOMAIN and node.op_type in OURS:
        return None
    if node.domain not in STANDARD:
        return f"the domain {node.domain} has no kernels, and the model has no body for it"
    if dequantizes_weight(body, node):
        return "a whole weight would be dequantized in each call"
    return None
