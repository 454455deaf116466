"""Lower attention without a cache that onnxruntime has no kernel for to our own.

    Before   ai.lepton::Attention(q, k, v, mask)
    After    ai.lepton.cpu::MultiHeadAttention(q, k, v, key_padding_mask)

Encoders that were made of decoders (Qwen3-Embedding, EmbeddingGemma) have heads that share keys, or
windows, also softcaps. A window is not the bias that MultiHeadAttention would take for it, which
has a number for each pair of tokens: keys out of sight are not read.
Refuses: sinks; a mask made inside the layer; heads of a width that is not known, or no multiple of
8; other types than fp32. What has none of the three is left to lower-attention.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.dtypes import type_of
from lepton_passes.lowering.ort._grouped_query import grouped_query
from lepton_passes.lowering.ort._masked_attention import MaskedAttentionPass
from lepton_passes.match import width_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerGroupedAttention"]

_SINKS = 4


class LowerGroupedAttention(MaskedAttentionPass):
    """Lower grouped heads, windows and softcaps without a cache to a kernel of our own."""

    name = "lower-grouped-attention"
    summary = "Attention without a cache, grouped or with a window, to a kernel of our own"

    def rewrite(self, body: Body) -> None:
        self.lower_masked(body, filter(_is_special, body.nodes("Attention", domain=DIALECT)))

    def lacks(self, body: Body, node: ir.Node) -> str | None:
        """What our kernel has not."""
        return _refuses(body, node)

    def lower(self, body: Body, node: ir.Node, masks: list[ir.Value]) -> None:
        """A mask is the kernel's padding; windows and groups are attributes."""
        attributes = grouped_query(node)
        attributes["window"] = attributes.pop("local_window_size")
        attributes["unidirectional"] = node.attributes.get_int("causal", 0)
        padding = body.lift("key_padding_mask", [self._masks.padding(m) for m in masks])
        inputs = [*node.inputs[:3], padding]
        new = body.emit(node, "MultiHeadAttention", inputs, attributes, domain=CPU_DOMAIN)
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)


def _is_special(node: ir.Node) -> bool:
    """Whether it has what MultiHeadAttention of onnxruntime has not, or as a large bias alone."""
    told = grouped_query(node)
    grouped = told["num_heads"] != told["kv_num_heads"]
    return grouped or told["local_window_size"] >= 0 or told["softcap"] != 0


def _refuses(body: Body, node: ir.Node) -> str | None:
    query = node.inputs[0]
    if len(node.inputs) > _SINKS:
        return "the kernel has sinks beside a cache alone"
    if type_of(body, query) not in (ir.DataType.FLOAT, None):
        return "the kernel reads fp32 alone"
    width, heads = width_of(query), node.attributes.get_int("q_num_heads")
    if width is None:
        return "how wide heads are is not known"
    return f"heads of {width // heads} are no multiple of 8" if width % (8 * heads) else None
