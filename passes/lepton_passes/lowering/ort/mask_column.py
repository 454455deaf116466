"""Say what is padding by a column of keys, in attention of onnxruntime over long texts.

    Before   MultiHeadAttention(q, k, v, , mask)
    After    MultiHeadAttention(q', k', v)      q' = q and a 1 of each head, k' = k and 0, or -1e9

With a mask the kernel holds the scores of all heads at once, which is memory by the square of a
text's length: 3.3 GB for 12 heads and 8,192 tokens. Without one it goes by blocks (75 MB), and
takes 0.83 to 0.85 of the time for 2,048 and 8,192 tokens (Zen 4, one thread). Scores of keys that
are seen stay the same: a zero is added.
The column is made once for all layers with as many heads.
Refuses: keys that are known to be few; a causal order, or a bias, with which the kernel holds all
scores in any case; heads in an order of their own, or of no known width where no scale is given;
other types than fp32; a mask made inside the layer, of another form, or with a value of its own;
outputs for a cache; masks of ONNX files, by which a row may hide all of its keys: their order is
then that of the scores, which 1e9 leaves nothing of.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import type_of
from lepton_passes.lowering.ort.sequence_lengths import MaskValues
from lepton_passes.match import input_at, made_by, sizes_of
from lepton_passes.origin import from_file

__all__ = ["LONG", "LowerMaskColumn"]

LONG = 1024
"""Tokens from which on it is worth the copies of queries and keys."""
_BIAS, _MASK = 3, 4  # inputs
_AXES = 3  # (batch, sequence, heads side by side)
_RANK = 2  # of a mask of keys (batch, sequence)


class LowerMaskColumn(LeptonPass):
    """Padding as a column of keys, for attention of onnxruntime over long texts."""

    name = "lower-mask-column"
    summary = "Padding as a column of keys, for attention over long texts"
    changes_numbers = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._masks = MaskValues(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("MultiHeadAttention", domain=MICROSOFT):
            if input_at(node, _MASK) is None:
                continue
            masks = body.arguments(node.inputs[_MASK])
            reason = _refuses(body, node) or _refuses_mask(body, node, masks)
            if reason is not None or masks is None:
                self.refuse(body, node, reason or "")
                continue
            self._lower(body, node, masks)

    def _lower(self, body: Body, node: ir.Node, masks: list[ir.Value]) -> None:
        heads = node.attributes.get_int("num_heads")
        column = body.lift("mask_column", [self._masks.column(mask, heads) for mask in masks])
        query, key = (_by_head(body, node, value, heads) for value in node.inputs[:2])
        ends = body.constant_node(node, np.array([0] * 7 + [1], np.int64))
        one = body.constant_node(node, np.array(1.0, np.float32))
        wide = [
            body.emit(node, "Pad", [query, ends, one]),
            body.emit(node, "Concat", [key, column], {"axis": -1}),
        ]
        flat = body.constant_node(node, np.array([0, 0, -1], np.int64))
        given = [body.emit(node, "Reshape", [each.outputs[0], flat]).outputs[0] for each in wide]
        scale = _scale(body, node)
        assert scale is not None
        attributes: dict[str, float | ir.Attr] = {**node.attributes, "scale": scale}
        inputs = [*given, node.inputs[2]]
        new = body.emit(node, "MultiHeadAttention", inputs, attributes, domain=MICROSOFT)
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)


def _by_head(body: Body, node: ir.Node, value: ir.Value | None, heads: int) -> ir.Value:
    """(batch, sequence, heads, width) of heads side by side."""
    shape = body.constant_node(node, np.array([0, 0, heads, -1], np.int64))
    return body.emit(node, "Reshape", [value, shape]).outputs[0]


def _scale(body: Body, node: ir.Node) -> float | None:
    """Of scores; where it is not said it is that of the width of a head, which will be another."""
    if (said := node.attributes.get_float("scale", 0.0)) != 0:
        return said
    sizes = sizes_of(body, node.inputs[0])
    whole = sizes[-1] if sizes is not None else None
    return (
        (whole // node.attributes.get_int("num_heads")) ** -0.5 if isinstance(whole, int) else None
    )


def _refuses_mask(body: Body, node: ir.Node, masks: list[ir.Value] | None) -> str | None:
    if from_file(body.model):
        return "the mask is one of a file, which may hide all keys"
    if masks is None:
        return "the mask is made inside the layer"
    if any(_axes(mask) != _RANK for mask in masks):
        return "the mask is not one of keys"
    if "mask_filter_value" in node.attributes:
        return "the mask has a value of its own"
    return None


def _axes(mask: ir.Value) -> int | None:
    """How many there are, of what a mask was before it was cast."""
    before = mask
    while before.shape is None and (maker := made_by(before, "Cast")) is not None:
        assert maker.inputs[0] is not None
        before = maker.inputs[0]
    return None if before.shape is None else len(before.shape)


def _refuses(body: Body, node: ir.Node) -> str | None:
    if node.attributes.get_int("unidirectional", 0):
        return "the order of tokens hides keys, too"
    if any(value is not None for value in (node.inputs[_BIAS], *node.inputs[_MASK + 1 :])):
        return "scores have a bias, or keys come from a cache"
    sizes = [sizes_of(body, value) for value in node.inputs[:2]]
    if any(each is None or len(each) != _AXES for each in sizes):
        return "heads are not side by side"
    if sizes[1] is not None and isinstance(keys := sizes[1][1], int) and keys < LONG:
        return f"there are {keys} keys, which take little memory"
    if type_of(body, node.inputs[0]) != ir.DataType.FLOAT:
        return "queries are not fp32"
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return "its keys and values are read behind it"
    if _scale(body, node) is None:
        return "the width of heads is unknown, by which scores are scaled"
    return None
