"""Lower attention over the cache of an earlier layer to GroupQueryAttention without new keys.

    Before   q = RotaryEmbedding(a, cos, sin)
             o = ai.lepton::SharedAttention(q, keys, values, mask)
    After    o = GroupQueryAttention(a, none, none, keys, values, seqlens_k,
                                     total_sequence_length, cos_table, sin_table)

``keys`` and ``values`` are the present of that layer, past and new tokens; ``none`` are keys of no
token, in the type of the query. The kernel reads them where they are and, as nobody asks for a
present, copies nothing; in a buffer with spare room it reads as far as the mask says.

Refuses: attention that is not causal; a mask made inside the layer; an onnxruntime before 1.31,
whose kernel crashes without a present. The rotary embedding stays outside where cos and sin are not
rows of tables by position, or the number of angles is no multiple of 8.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import type_of
from lepton_passes.lowering.ort._angles import tables_of
from lepton_passes.lowering.ort._grouped_query import grouped_query
from lepton_passes.lowering.ort.sequence_lengths import MaskValues
from lepton_passes.match import made_by, width_of

__all__ = ["LowerSharedAttention"]

_LEAST = (1, 31)


class LowerSharedAttention(LeptonPass):
    """Lower attention over the cache of an earlier layer to GroupQueryAttention.

    Args:
        ours: a kernel of our own takes it, whatever the onnxruntime.
    """

    name = "lower-shared-attention"
    summary = "Attention over another layer's cache to GroupQueryAttention"
    changes_numbers = True
    counts_as = "attention"

    def __init__(self, *, ours: bool = False) -> None:
        super().__init__()
        self._ours = ours

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._masks = MaskValues(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("SharedAttention", domain=DIALECT):
            masks = body.arguments(node.inputs[3])
            width = _width(body, node)
            if node.attributes.get_int("causal", 1) != 1:
                self.refuse(body, node, "it is not causal")
            elif masks is None:
                self.refuse(body, node, "the mask is made inside the layer")
            elif width is None:
                self.refuse(body, node, "the width of its heads is not known")
            elif not self._ours and _too_old():
                self.refuse(body, node, "onnxruntime before 1.31 has no kernel without a present")
            else:
                self._lower(body, node, masks, width)

    def _lower(self, body: Body, node: ir.Node, masks: list[ir.Value], width: int) -> None:
        query, keys, values = node.inputs[:3]
        heads = node.attributes.get_int("kv_num_heads")
        attributes = grouped_query(node)
        tables: tuple[ir.Value, ir.Value] | None = None
        rotary = made_by(query, "RotaryEmbedding")
        if rotary is not None:
            tables = self._tables(body, rotary)
        if rotary is not None and tables is not None:
            query = rotary.inputs[0]
            turns = rotary.attributes.get_int("interleaved", 0)
            attributes |= {"do_rotary": 1, "rotary_interleaved": turns}
        lengths = body.lift("seqlens_k", [self._masks.seqlens(m) for m in masks])
        total = body.lift("total_sequence_length", [self._masks.total(m) for m in masks])
        dtype = type_of(body, query) or ir.DataType.FLOAT
        none = body.lift("no_keys", [self._masks.no_keys(m, heads * width, dtype) for m in masks])
        inputs = [query, none, none, keys, values, lengths, total, *(tables or ())]
        new = body.emit(node, "GroupQueryAttention", inputs, attributes, domain=MICROSOFT)
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)

    def _tables(self, body: Body, rotary: ir.Node) -> tuple[ir.Value, ir.Value] | None:
        """Tables of the angles, when the kernel can look them up."""
        found = tables_of(body, rotary)
        if isinstance(found, str):
            self.refuse(body, rotary, found)
            return None
        return found


def _width(body: Body, node: ir.Node) -> int | None:
    """Width of a head, from the present; noted inside the layer, for the passes behind."""
    for value in node.inputs[1:3]:
        outer = body.arguments(value)
        if value is not None and value.shape is None and outer:
            value.type, value.shape = outer[0].type, outer[0].shape
    return width_of(node.inputs[1])


def _too_old() -> bool:
    """Whether the onnxruntime at hand is."""
    try:
        from onnxruntime import __version__ as version
    except ImportError:
        return False
    return tuple(int(part) for part in version.split(".")[:2]) < _LEAST
