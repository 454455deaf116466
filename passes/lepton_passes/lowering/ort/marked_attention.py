"""Lower attention in which the tokens of a picture see each other to our own CPU kernel.

    Before   o, present.. = ai.lepton::MarkedAttention(q, k, v, marks, past_key, past_value)
             marks = ai.lepton::MarkedMask(attention_mask, input_ids, token)
    After    o, present.. = ai.lepton.cpu::GroupQueryAttention(q, k, v, past_key, past_value,
                                seqlens_k, total_sequence_length, cos, sin, .., bias)

The bias says which keys a query sees, and is made once for all layers with one window. The rest is
as lower-cached-attention has it; kernels of onnxruntime hide what follows in any case.
Refuses: what lower-cached-attention refuses; marks that are made elsewhere; widths of heads that
are no multiple of 8.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.lowering.ort._marked_bias import MarkedBias
from lepton_passes.lowering.ort.cached_attention import LowerCachedAttention
from lepton_passes.match import made_by
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerMarkedAttention"]

# Between tables of angles and the bias: norms of heads, and how many queries are wanted.
_LEFT_OUT = [None] * 3


class LowerMarkedAttention(LowerCachedAttention):
    """Lower attention in which tokens of a picture see each other to a kernel of our own."""

    name = "lower-marked-attention"
    summary = "Attention in which pictures see themselves to a kernel of our own"
    lowered = "MarkedAttention"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._biases = MarkedBias(model)
        return super().call(model)

    def _lower(self, body: Body, node: ir.Node, masks: list[ir.Value]) -> None:
        shapes = [past.shape for past in body.arguments(node.inputs[4]) or ()]
        width = shapes[0][3] if shapes and shapes[0] is not None else None
        if None in [made_by(mask, "MarkedMask", domain=DIALECT) for mask in masks]:
            self.refuse(body, node, "the marks are made elsewhere")
        elif not isinstance(width, int) or width % 8:
            self.refuse(body, node, f"heads of {width} are no multiple of 8")
        else:
            super()._lower(body, node, masks)

    def _emit(
        self,
        body: Body,
        node: ir.Node,
        masks: list[ir.Value],
        inputs: list[ir.Value | None],
        attributes: dict[str, int | float],
    ) -> ir.Node:
        window = int(attributes["local_window_size"])
        bias = body.lift("bias", [self._biases.of(mask, window) for mask in masks])
        own = {"do_rotary": 0, "rotary_interleaved": 0, "epsilon": 0.0}
        own |= {**attributes, "local_window_size": -1}  # which the bias says
        name = "GroupQueryAttention"
        given = [*inputs[:9], *_LEFT_OUT, bias]
        return body.emit(node, name, given, own, domain=CPU_DOMAIN, outputs=3)
