"""Lower attention without a cache to MultiHeadAttention.

    Before   ai.lepton::Attention(q, k, v, mask)        Attention(q, k, v), without any mask
    After    MultiHeadAttention(q, k, v, key_padding_mask)       without one, likewise

The mask goes in as int32, computed once for all layers. A window becomes a bias of positions, also
computed once. Refuses: grouped heads; softcap; a mask made inside the layer; a causal window; a
causal order where queries and keys are not known to be as many; fp64.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, MICROSOFT, Body
from lepton_passes.dtypes import type_of
from lepton_passes.lowering._unmasked import unmasked
from lepton_passes.lowering.ort._masked_attention import MaskedAttentionPass
from lepton_passes.match import sizes_of

__all__ = ["LowerAttention"]


class LowerAttention(MaskedAttentionPass):
    """Lower attention without a cache to MultiHeadAttention."""

    name = "lower-attention"
    summary = "Attention without a cache to MultiHeadAttention"

    def rewrite(self, body: Body) -> None:
        for node in filter(unmasked, body.nodes("Attention")):
            self._lower_unmasked(body, node)
        self.lower_masked(body, body.nodes("Attention", domain=DIALECT))

    def lacks(self, body: Body, node: ir.Node) -> str | None:
        """What the kernel has not."""
        return _refuses(node)

    def _lower_unmasked(self, body: Body, node: ir.Node) -> None:
        reason = _refuses(node) or _refuses_order(body, node) or _refuses_type(body, node)
        if reason is not None:
            self.refuse(body, node, reason)
            return
        attributes = {
            "num_heads": node.attributes.get_int("q_num_heads"),
            "scale": node.attributes.get_float("scale"),
            "unidirectional": node.attributes.get_int("is_causal", 0),
        }
        new = body.emit(node, "MultiHeadAttention", node.inputs[:3], attributes, domain=MICROSOFT)
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)

    def lower(self, body: Body, node: ir.Node, masks: list[ir.Value]) -> None:
        """A mask is the kernel's padding, and a window a bias."""
        window = node.attributes.get_int("window", -1)
        padding = body.lift("key_padding_mask", [self._masks.padding(m) for m in masks])
        bias = None
        if window >= 0:
            dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
            made = [self._masks.window_bias(m, window, dtype or ir.DataType.FLOAT) for m in masks]
            bias = body.lift("window_bias", made)
        attributes = {
            "num_heads": node.attributes.get_int("q_num_heads"),
            "scale": node.attributes.get_float("scale"),
            "unidirectional": node.attributes.get_int("causal", 0),
        }
        new = body.emit(
            node,
            "MultiHeadAttention",
            [*node.inputs[:3], None, padding, bias],
            attributes,
            domain=MICROSOFT,
        )
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)


def _refuses(node: ir.Node) -> str | None:
    if node.attributes.get_int("kv_num_heads") != node.attributes.get_int("q_num_heads"):
        return "the kernel has no grouped heads"
    if node.attributes.get_float("softcap", 0.0) != 0:
        return "the kernel has no softcap"
    if len(node.inputs) > 4:
        return "the kernel has no sinks"
    if node.attributes.get_int("causal", 0) and node.attributes.get_int("window", -1) >= 0:
        return "a causal window needs a bias on both sides"
    return None


def _refuses_order(body: Body, node: ir.Node) -> str | None:
    """The first query of ONNX's op sees the first key; the last of the kernel sees the last one."""
    if not node.attributes.get_int("is_causal", 0):
        return None
    queries, keys = (sizes_of(body, value) for value in node.inputs[:2])
    if queries is None or keys is None or queries[1] != keys[1]:
        return "a causal order, with other keys than queries"
    return None


def _refuses_type(body: Body, node: ir.Node) -> str | None:
    return "the kernel has no fp64" if type_of(body, node.inputs[0]) == ir.DataType.DOUBLE else None
