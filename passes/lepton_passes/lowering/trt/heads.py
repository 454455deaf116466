"""Between the layouts of attention: rows of all heads (batch, sequence, heads * width), and heads
apart (batch, heads, sequence, width), which is what TensorRT takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.match import SEQUENCE_MAJOR, heads_of, made_by

__all__ = ["DOMAIN", "join_heads", "scaled", "split_heads"]

DOMAIN = "trt"
"""Domain of the ops that TensorRT's importer adds; it looks at their names alone."""


def split_heads(
    body: Body, before: ir.Node, rows: ir.Value | None, heads: int, width: int
) -> ir.Value:
    """``rows`` with the heads apart; a rotary embedding in front is turned on heads, too."""
    assert rows is not None
    cast = made_by(rows, "Cast")
    if cast is not None and made_by(cast.inputs[0], "RotaryEmbedding") is not None:
        apart = split_heads(body, before, cast.inputs[0], heads, width)
        return _as(body, before, "Cast", [apart], {"to": cast.attributes.get_int("to")}, rows)
    rotary = made_by(rows, "RotaryEmbedding")
    if rotary is not None and rotary.attributes.get_int("num_heads", 0) == heads:
        apart = split_heads(body, before, rotary.inputs[0], heads, width)
        kept = {k: a.as_int() for k, a in rotary.attributes.items() if k != "num_heads"}
        inputs = [apart, *rotary.inputs[1:]]
        return _as(body, before, "RotaryEmbedding", inputs, dict(kept), rows)
    joined = made_by(rows, "Reshape")
    source = joined.inputs[0] if joined is not None else None
    if source is None or heads_of(body, source) != (heads, width):
        shape = body.constant_node(before, np.array([0, 0, heads, width]))
        source = _as(body, before, "Reshape", [rows, shape], {}, rows)
    return _as(body, before, "Transpose", [source], {"perm": SEQUENCE_MAJOR}, rows)


def join_heads(body: Body, before: ir.Node, apart: ir.Value, heads: int, width: int) -> ir.Value:
    """``apart`` with the heads of a token side by side."""
    turned = _as(body, before, "Transpose", [apart], {"perm": SEQUENCE_MAJOR}, apart)
    shape = body.constant_node(before, np.array([0, 0, heads * width]))
    return _as(body, before, "Reshape", [turned, shape], {}, apart)


def scaled(body: Body, before: ir.Node, query: ir.Value, scale: float) -> ir.Value:
    """The query times the scale of the scores: TensorRT's attention has none of its own."""
    if scale == 1.0:
        return query
    dtype = query.dtype or ir.DataType.FLOAT
    factor = body.constant_node(before, np.array(scale, dtype=dtype.numpy()))
    return _as(body, before, "Mul", [query, factor], {}, query)


def _as(
    body: Body,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, int | float | str | Sequence[int]],
    like: ir.Value,
) -> ir.Value:
    """The output of a new node, of the type of ``like``."""
    out = body.emit(before, op_type, inputs, attributes).outputs[0]
    out.type = like.type
    return out
