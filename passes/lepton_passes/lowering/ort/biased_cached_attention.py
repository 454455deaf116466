"""Lower attention with a bias of scores over a cache to our own CPU kernel, which extends it.

    Before   key = Concat(past_key, Transpose(Reshape(k)));  value = Concat(past_value, ..)
             Reshape(Transpose(Attention(q, key, value, bias)))         q likewise
    After    y, key, value = ai.lepton.cpu::GroupQueryAttention(q, k, v, past_key, past_value,
                                 seqlens_k, total_sequence_length, .., bias)

The decoders of T5, mT5 and UMT5; past and present may be one buffer. All rows are as long as the
bias has keys: what is hidden, the bias hides. ``seqlens_k`` and ``total_sequence_length`` are made
of its shape, once for all layers.

Refuses: what lower-biased-attention refuses; a decoder that reads no text of another, whose rows
differ in length: in one buffer their tokens would not stand where the bias has them; a past or a
present that something else has, too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort._biased import Biased, attends, biased, flat, thirds
from lepton_passes.match import made_by
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerBiasedCachedAttention"]

_SOURCE = "encoder_"  # how the names of inputs begin that an encoder reads
_INT32 = int(ir.DataType.INT32)
# Between lengths and bias: tables of angles, norms of heads, and how many queries are wanted.
_LEFT_OUT = [None] * 5


class LowerBiasedCachedAttention(LeptonPass):
    """Lower attention with a bias over a cache to a kernel of our own."""

    name = "lower-biased-cached-attention"
    summary = "Attention with a bias over a cache to a kernel of our own"
    changes_numbers = True
    counts_as = "attention"

    def rewrite(self, body: Body) -> None:
        self._lengths: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        reads = any((v.name or "").startswith(_SOURCE) for v in body.model.graph.inputs)
        for node in filter(attends, body.nodes("Attention")):
            grown = [made_by(value, "Concat") for value in node.inputs[1:3]]
            if None in grown:
                continue
            found = biased(body, node)
            news = [flat(body, each.inputs[1]) for each in grown if each is not None]
            if isinstance(found, str):
                self.refuse(body, node, found)
            elif not reads:
                self.refuse(body, node, "rows of different lengths would share a buffer")
            elif not all(_is_cache(each) for each in grown) or None in news:
                self.refuse(body, node, "its keys are not those of a cache and new ones behind")
            else:
                self._lower(body, node, found, [c for c in grown if c is not None], news)

    def _lower(
        self,
        body: Body,
        node: ir.Node,
        found: Biased,
        grown: list[ir.Node],
        news: list[ir.Value | None],
    ) -> None:
        attributes: dict[str, int | float] = {
            "num_heads": found.heads,
            "kv_num_heads": found.heads,
            "scale": found.scale,
            "do_rotary": 0,
            "rotary_interleaved": 0,
            "local_window_size": -1,
            "softcap": 0.0,
            "epsilon": 0.0,
        }
        given = thirds(body, found.query, *news)
        inputs = [
            *given,
            *(each.inputs[0] for each in grown),
            *self._lengths_of(body, node, found.bias, given[0]),
            *_LEFT_OUT,
            found.bias,
        ]
        new = body.emit(
            node, "GroupQueryAttention", inputs, attributes, domain=CPU_DOMAIN, outputs=3
        )
        for old, made in zip((found.result, *grown), new.outputs, strict=True):
            body.replace(old.outputs[0], made)
        self.fire(body)

    def _lengths_of(
        self, body: Body, node: ir.Node, bias: ir.Value, query: ir.Value | None
    ) -> tuple[ir.Value, ir.Value]:
        """Index of the last token of each row, and how many there are."""
        if bias not in self._lengths:
            count = body.emit(node, "Shape", [bias], {"start": 3, "end": 4}).outputs[0]
            total = body.emit(node, "Cast", [count], {"to": _INT32}).outputs[0]
            one = body.constant_node(node, np.array([1], np.int32))
            last = body.emit(node, "Sub", [total, one]).outputs[0]
            rows = body.emit(node, "Shape", [query], {"start": 0, "end": 1}).outputs[0]
            self._lengths[bias] = body.emit(node, "Expand", [last, rows]).outputs[0], total
        return self._lengths[bias]


def _is_cache(grown: ir.Node | None) -> bool:
    """Whether it is past and new keys, the past given and the whole given back."""
    if grown is None or len(grown.inputs) != 2 or grown.attributes.get_int("axis", 0) != 2:
        return False
    past, (present,) = grown.inputs[0], grown.outputs
    given = past is not None and past.is_graph_input() and len(list(past.uses())) == 1
    return given and present.is_graph_output() and len(list(present.uses())) == 1
