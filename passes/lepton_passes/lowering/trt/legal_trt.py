"""Check that TensorRT takes every node, and that none is a trap.

Changes nothing; each refusal is a node that TensorRT would reject, or would build into an engine
that computes something else. Among the latter, which no builder reports:

    nonpad_kv_seqlen of Attention
    scale, is_causal or unknown attributes of TRT_Attention; kv_lengths at the wrong input
    unknown attributes of TRT_KVCacheUpdate
    attention over a cache of fixed length that nothing keeps from rows that are not filled, or
    whose queries are counted from the wrong end
    a block_size that the shape of the scales contradicts

The traps stand by what they are about: _attention_traps.py, _output_traps.py, _type_traps.py,
_importers.py; _cache_traces.py finds the cache behind an attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import fill_types
from lepton_passes.lowering.trt import _attention_traps as attention
from lepton_passes.lowering.trt import _output_traps as outputs
from lepton_passes.lowering.trt import _type_traps as typed
from lepton_passes.lowering.trt._importers import (
    IMPORTED,
    NEEDS_PLUGIN,
    OF_DIALECT,
    OWN,
    REASONS,
)
from lepton_plugins.attention.spec import SPEC

__all__ = ["LegalTrt"]

Trap = Callable[[Body, ir.Node], Iterator[str]]

_PLUGIN = (SPEC.namespace, SPEC.name)
_TRAPS: dict[str, tuple[Trap, ...]] = {
    "Attention": (attention.standard_attention, outputs.only_first),
    "DequantizeLinear": (typed.dequantize,),
    "MultiHeadAttention": (attention.multi_head, outputs.only_first),
    "QuantizeLinear": (typed.quantize,),
    "RotaryEmbedding": (typed.turned,),
    "SkipSimplifiedLayerNormalization": (outputs.skip_norm,),
    "TRT_Attention": (attention.fused_attention,),
    "TRT_FP4DynamicQuantize": (typed.dynamic_blocks,),
    "TRT_KVCacheUpdate": (attention.cache_update,),
    "TRT_MXFP8DynamicQuantize": (typed.dynamic_blocks,),
    "TensorScatter": (attention.cache_update,),
}


class LegalTrt(LeptonPass):
    """Check that TensorRT takes every node, and that none is a trap."""

    name = "legal-trt"
    summary = "TensorRT takes every op, and drops nothing in silence"
    must_not_refuse = True
    runs_on_cpu = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        fill_types(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes():
            for reason in _reasons(body, node):
                self.refuse(body, node, reason)


def _reasons(body: Body, node: ir.Node) -> Iterator[str]:
    if node.domain == LAYER_DOMAIN:
        return
    if (node.domain, node.op_type) == _PLUGIN:
        yield from attention.plugin_attention(body, node)
        return
    unknown = _unknown(body, node)
    if unknown is not None:
        yield unknown
        return
    for trap in (typed.types, typed.same_types, *_TRAPS.get(node.op_type, ())):
        yield from trap(body, node)


def _unknown(body: Body, node: ir.Node) -> str | None:
    """Why there is no importer for the op."""
    if node.op_type in REASONS:
        return REASONS[node.op_type]
    if node.op_identifier() in body.model.functions:
        if node.op_type in OF_DIALECT:
            return OF_DIALECT[node.op_type]
        return f"{node.domain} is the dialect of the compiler; no pass lowered the op"
    if node.op_type in NEEDS_PLUGIN:
        return "its importer needs a plugin of NVIDIA's that no wheel contains"
    if node.op_type in OWN or (node.op_type in IMPORTED and not node.domain):
        return None
    return f"TensorRT has no importer for {node.op_type} of {node.domain or 'ONNX'}"
