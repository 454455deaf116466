"""Lower attention without a cache to TensorRT's attention.

    Before   ai.lepton::Attention(q, k, v, mask)        Attention(q, k, v), without any mask
    After    TRT_Attention(q * scale, k, v, bias)         heads as (batch, heads, sequence, width)

The bias is made once for all layers with the same window: (batch, 1, 1, sequence) where every query
sees the same keys, (batch, 1, sequence, sequence) with a window or where the attention is causal.
TensorRT takes boolean masks too, into engines more than twice as large. A softcap, and heads wider
than 256, are written out in products and a Softmax (``written.py``).
Refuses: heads of a width that is not known; sinks; a mask made inside the layer.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering._unmasked import unmasked
from lepton_passes.lowering.trt.cache_values import HIDDEN
from lepton_passes.lowering.trt.forms import FORM, FUSED_WIDEST
from lepton_passes.lowering.trt.heads import DOMAIN, join_heads, scaled, split_heads
from lepton_passes.lowering.trt.written import written_attention
from lepton_passes.match import width_of

__all__ = ["LowerTrtAttention"]


class LowerTrtAttention(LeptonPass):
    """Lower attention without a cache to TensorRT's attention."""

    name = "lower-trt-attention"
    summary = "Attention without a cache to TensorRT's layer"
    changes_numbers = True
    counts_as = "attention"
    runs_on_cpu = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._main = Body(model)
        self._made: dict[tuple[ir.Value, int, int, ir.DataType], ir.Value] = {}
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        own = [node for node in body.nodes("Attention") if _is_free(node)]
        for node in [*own, *body.nodes("Attention", domain=DIALECT)]:
            free = not node.domain
            masks = [] if free else body.arguments(node.inputs[3])
            width = _width(body, node)
            if masks is None:
                self.refuse(body, node, "the mask is made inside the layer")
            elif width is None:
                self.refuse(body, node, "the width of its heads is unknown")
            elif free and (node.attributes.get_float("softcap", 0.0) != 0 or width > FUSED_WIDEST):
                self.refuse(body, node, "without a mask it is not written out")
            elif len(node.inputs) > 4:
                self.refuse(body, node, "it has sinks, which are lowered beside a cache alone")
            else:
                self._lower(body, node, masks, width)

    def _lower(self, body: Body, node: ir.Node, masks: list[ir.Value], width: int) -> None:
        heads, kv_heads = (
            node.attributes.get_int(name) for name in ("q_num_heads", "kv_num_heads")
        )
        window, causal = (
            node.attributes.get_int("window", -1),
            node.attributes.get_int("causal", 0),
        )
        softcap = node.attributes.get_float("softcap", 0.0)
        fused = not softcap and width <= FUSED_WIDEST
        dtype = _dtype(node) if fused else ir.DataType.FLOAT
        made = [self._bias(m, window, causal, dtype) for m in masks]
        bias = [body.lift("attention_bias", made)] if made else []
        query = split_heads(body, node, node.inputs[0], heads, width)
        key, value = (split_heads(body, node, v, kv_heads, width) for v in node.inputs[1:3])
        inputs = [scaled(body, node, query, node.attributes.get_float("scale")), key, value, *bias]
        if fused:
            new = body.emit(node, "TRT_Attention", inputs, {"TRT_decomposable": 1}, domain=DOMAIN)
            new.outputs[0].type = query.type
            found = new.outputs[0]
        else:
            found = written_attention(body, node, inputs, (heads, kv_heads, width), softcap)
        maker = found.producer()
        assert maker is not None
        maker.metadata_props[FORM] = "encoder" if fused else "matmul"
        body.replace(node.outputs[0], join_heads(body, node, found, heads, width))
        self.fire(body)

    def _bias(self, mask: ir.Value, window: int, causal: int, dtype: ir.DataType) -> ir.Value:
        """The bias for a mask of the main graph, made where the mask is."""
        key = (mask, window, causal, dtype)
        if key not in self._made:
            nodes = list(self._main.graph)
            maker = mask.producer()
            before = nodes[0] if maker is None else nodes[nodes.index(maker) + 1]
            self._made[key] = self._emit_bias(before, *key)
        return self._made[key]

    def _emit_bias(
        self, before: ir.Node, mask: ir.Value, window: int, causal: int, dtype: ir.DataType
    ) -> ir.Value:
        def node(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
            return self._main.emit(before, op_type, inputs, attributes).outputs[0]

        def constant(value: object) -> ir.Value:
            return self._main.constant_node(before, np.asarray(value))

        seen = node("Unsqueeze", mask, constant([1, 2]))
        if window >= 0 or causal:
            length = node("Squeeze", node("Shape", mask, start=1, end=2), constant([0]))
            places = node("Range", constant(0), length, constant(1))
            distance = node("Sub", node("Unsqueeze", places, constant([1])), places)
            if causal:
                seen = node("And", seen, node("GreaterOrEqual", distance, constant(0)))
            if window >= 0:
                near = node("Less", node("Abs", distance), constant(window))
                seen = node("And", seen, near)
        zero, hidden = (constant(dtype.numpy().type(v)) for v in (0.0, HIDDEN))
        bias = node("Where", seen, zero, hidden)
        bias.type = ir.TensorType(dtype)
        return bias


def _is_free(node: ir.Node) -> bool:
    """Whether it is attention without a mask, and without an order."""
    return unmasked(node) and not node.attributes.get_int("is_causal", 0)


def _width(body: Body, node: ir.Node) -> int | None:
    whole = width_of(node.outputs[0]) or width_of(node.inputs[0])
    return whole // node.attributes.get_int("q_num_heads") if whole is not None else None


def _dtype(node: ir.Node) -> ir.DataType:
    query = node.inputs[0]
    return (query.dtype if query is not None else None) or ir.DataType.FLOAT
