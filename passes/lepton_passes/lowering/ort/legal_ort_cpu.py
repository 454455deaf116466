"""Check that onnxruntime's CPU provider runs every op, and that none is a trap.

Changes nothing; each refusal is an op that cannot be built, by name:

    an op of a domain without kernels and without a body in the model
    an op of com.microsoft that has no CPU kernel
    an op of ONNX without a CPU kernel for its form at the opset of the graph
    DequantizeLinear of a whole weight, which would be computed again in each call: but beside other
    inputs that are dequantized, where onnxruntime computes in integers
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import onnx
import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body, sweep, whole_bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort._registered import serves
from lepton_passes.match import in_integers, readers
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
STANDARD = ("", "ai.onnx.ml")
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
_NEWEST = 24
_OPEN = 1 << 30  # where a range of opsets ends that is open
# Ops whose bodies, of ops of ONNX, have one that may lack a kernel itself.
_BODIES = {"Bernoulli": "RandomUniformLike"}


class LegalOrtCpu(LeptonPass):
    """Check that onnxruntime's CPU provider runs every op."""

    name = "legal-ort-cpu"
    summary = "Every op has a kernel on the CPU"
    must_not_refuse = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        for body in whole_bodies(model):
            self.rewrite(body)
        return ir.passes.PassResult(model, modified=bool(sweep(model)))

    def rewrite(self, body: Body) -> None:
        for node in body.graph.all_nodes():
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
            return CONTRIB | {s.name for s in schemas if s.domain == MICROSOFT}
        known = runtime.get_all_opkernel_def()
    except (ImportError, AttributeError):
        return CONTRIB
    cpu = [k for k in known if k.provider == "CPUExecutionProvider"]
    return CONTRIB | {k.op_name for k in cpu if k.domain == MICROSOFT}


@cache
def _ranges() -> Mapping[str, frozenset[tuple[int, int | None]]] | None:
    """Opsets of the CPU kernels for ops of ONNX, the last None where a range is open.

    None where no onnxruntime at hand is asked.
    """
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as runtime

        if set(runtime.get_available_providers()) - PLAIN:
            return None
        known = runtime.get_all_opkernel_def()
    except (ImportError, AttributeError):
        return None
    found: dict[str, set[tuple[int, int | None]]] = {}
    for each in known:
        if each.provider == "CPUExecutionProvider" and each.domain == "":
            first, last = each.version_range
            found.setdefault(each.op_name, set()).add((first, last if last < _OPEN else None))
    return {name: frozenset(ranges) for name, ranges in found.items()}


def _without_kernel(op_type: str, opset: int) -> bool:
    """Whether an op of ONNX has neither a kernel for its form at an opset nor a body."""
    ranges = _ranges()
    if ranges is None or op_type == "Constant" or not onnx.defs.has(op_type):
        return False
    schema = onnx.defs.get_schema(op_type, max_inclusive_version=opset)
    if any(serves(schema.since_version, *each) for each in ranges.get(op_type, ())):
        return False
    if op_type in _BODIES:
        return _without_kernel(_BODIES[op_type], opset)
    return not (schema.has_function or schema.has_context_dependent_function)


def _illegal(body: Body, node: ir.Node) -> str | None:
    if node.op_identifier() in body.model.functions:
        return None
    if node.domain == MICROSOFT:
        return None if node.op_type in _kernels() else "it has no CPU kernel"
    if node.domain == CPU_DOMAIN and node.op_type in OURS:
        return None
    if node.domain not in STANDARD:
        return f"the domain {node.domain} has no kernels, and the model has no body for it"
    opset = body.graph.opset_imports.get("", _NEWEST)
    if not node.domain and _without_kernel(node.op_type, opset):
        return f"it has no CPU kernel for its form at opset {opset}"
    # In front of what computes in integers, onnxruntime takes the node into its kernel.
    if dequantizes_weight(body, node) and not all(map(in_integers, readers(node.outputs[0]))):
        return "a whole weight would be dequantized in each call"
    return None
