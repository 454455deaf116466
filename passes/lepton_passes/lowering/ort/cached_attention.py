"""Lower cached attention to GroupQueryAttention, the rotary embedding inside where possible.

    Before   q = RotaryEmbedding(a, cos, sin);  k = RotaryEmbedding(b, cos, sin)
             o, present.. = ai.lepton::CachedAttention(q, k, v, mask, past_key, past_value)
    After    o, present.. = GroupQueryAttention(a, b, v, past_key, past_value, seqlens_k,
                                                total_sequence_length, cos_table, sin_table)

When a, b and v are the three pieces of one Split, the kernel takes the whole. ``seqlens_k`` and
``total_sequence_length`` come from the mask, once for all layers, so padding must be on the right;
``local_window_size`` counts the query itself, as ``window`` does. The CPU kernel has no norm of
heads inside (its inputs q_norm_weight and k_norm_weight are refused at run time): norms stay.
Attention sinks, a seventh input, become the kernel's ``head_sink``.

Refuses: attention that is not causal; a mask made inside the layer. The rotary embedding stays
outside when q and k differ in it, when cos and sin are not rows of tables by position, or when the
number of angles is no multiple of 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lepton_passes.body import DIALECT, MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort._angles import tables_of
from lepton_passes.lowering.ort._grouped_query import grouped_query
from lepton_passes.lowering.ort.sequence_lengths import MaskValues
from lepton_passes.match import input_at, made_by, split_of

__all__ = ["LowerCachedAttention"]


@dataclass(frozen=True)
class _Rotary:
    query: ir.Value
    key: ir.Value
    tables: tuple[ir.Value, ir.Value]
    interleaved: int


class LowerCachedAttention(LeptonPass):
    """Lower cached attention to GroupQueryAttention."""

    name = "lower-cached-attention"
    summary = "Cached attention to GroupQueryAttention, rotary embedding inside"
    changes_numbers = True
    counts_as = "attention"
    lowered = "CachedAttention"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._masks = MaskValues(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes(self.lowered, domain=DIALECT):
            masks = body.arguments(node.inputs[3])
            if node.attributes.get_int("causal", 1) != 1:
                self.refuse(body, node, "it is not causal")
            elif masks is None:
                self.refuse(body, node, "the mask is made inside the layer")
            else:
                self._lower(body, node, masks)

    def _lower(self, body: Body, node: ir.Node, masks: list[ir.Value]) -> None:
        query, key, value = node.inputs[:3]
        heads = node.attributes.get_int("q_num_heads")
        kv_heads = node.attributes.get_int("kv_num_heads")
        attributes = grouped_query(node)
        tables: tuple[ir.Value | None, ir.Value | None] = (None, None)
        rotary = self._rotary(body, node)
        if rotary is not None:
            query, key, tables = rotary.query, rotary.key, rotary.tables
            attributes |= {"do_rotary": 1, "rotary_interleaved": rotary.interleaved}
        packed = _packed(body, query, key, value, heads // kv_heads)
        if packed is not None:
            query, key, value = packed, None, None
        sinks = input_at(node, 6)
        lengths = body.lift("seqlens_k", [self._masks.seqlens(m) for m in masks])
        total = body.lift("total_sequence_length", [self._masks.total(m) for m in masks])
        inputs = [query, key, value, *node.inputs[4:6], lengths, total, *tables]
        new = self._emit(body, node, masks, [*inputs, None, None, sinks], attributes)
        body.replace_all(node.outputs, new.outputs)
        self.fire(body)

    def _emit(
        self,
        body: Body,
        node: ir.Node,
        masks: list[ir.Value],
        inputs: list[ir.Value | None],
        attributes: dict[str, int | float],
    ) -> ir.Node:
        """The kernel in place of ``node``; ``masks`` are those of each call of the layer."""
        name = "GroupQueryAttention"
        return body.emit(node, name, inputs, attributes, domain=MICROSOFT, outputs=3)

    def _rotary(self, body: Body, node: ir.Node) -> _Rotary | None:
        """The rotary embedding of query and key when the kernel can do it."""
        made = (made_by(value, "RotaryEmbedding") for value in node.inputs[:2])
        turns = [each for each in made if each is not None]
        if not turns:
            return None
        found: tuple[ir.Value, ir.Value] | str
        if len(turns) < 2:
            found = "only one of query and key has a rotary embedding; it stays outside"
        elif list(turns[0].inputs[1:3]) != list(turns[1].inputs[1:3]):
            found = "query and key are turned by different angles; it stays outside"
        else:
            found = tables_of(body, *turns)
        if isinstance(found, str):
            self.refuse(body, node, found)
            return None
        query, key = (each.inputs[0] for each in turns)
        assert query is not None
        assert key is not None
        return _Rotary(query, key, found, turns[0].attributes.get_int("interleaved", 0))


def _packed(
    body: Body, query: ir.Value | None, key: ir.Value | None, value: ir.Value | None, group: int
) -> ir.Value | None:
    """What query, key and value are the three pieces of."""
    split = split_of(body, (query, key, value))
    if split is None:
        return None
    packed, sizes = split
    return packed if sizes == [group * sizes[1], sizes[1], sizes[1]] else None
