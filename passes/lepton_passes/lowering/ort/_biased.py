"""ONNX's own attention with numbers that are added to scores, as models with a bias of relative
positions have it: (batch, heads, sequence, width) in and out, between transposes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.dtypes import type_of
from lepton_passes.match import (
    SEQUENCE_MAJOR,
    input_at,
    ints_of,
    keeps_two,
    made_by,
    only_reader,
    perm_of,
    rank_of,
    split_of,
)

__all__ = ["Biased", "attends", "biased", "flat", "thirds"]


@dataclass(frozen=True)
class Biased:
    """What kernels are told of such attention.

    Attributes:
        query: (batch, sequence, heads * width).
        bias: added to scores, of four axes.
        result: the Reshape that puts the heads of what it makes side by side.
    """

    query: ir.Value
    bias: ir.Value
    result: ir.Node
    heads: int
    width: int
    scale: float


def attends(node: ir.Node) -> bool:
    """Whether it is ONNX's attention, and takes what is added to scores, or hides keys."""
    return not node.domain and input_at(node, 3) is not None


def biased(body: Body, node: ir.Node) -> Biased | str:
    """What is to be known of it, or why our kernels do not compute it."""
    if reason := _refuses(body, node):
        return reason
    query, bias = node.inputs[0], node.inputs[3]
    assert query is not None
    assert bias is not None
    assert query.shape is not None
    heads, width = query.shape[1], query.shape[3]
    assert isinstance(heads, int)
    assert isinstance(width, int)
    rows, result = flat(body, query), _side_by_side(body, node, heads * width)
    if rows is None or result is None:
        return "its heads do not come from one row, or do not go to one"
    return Biased(rows, bias, result, heads, width, node.attributes.get_float("scale"))


def flat(body: Body, value: ir.Value | None) -> ir.Value | None:
    """(batch, sequence, heads * width), where that is what (batch, heads, sequence, width) was
    made of."""
    turned = made_by(value, "Transpose")
    if turned is None or perm_of(turned) != SEQUENCE_MAJOR:
        return None
    cut = made_by(turned.inputs[0], "Reshape")
    if cut is None or rank_of(body, cut.inputs[0]) != 3 or not keeps_two(body, cut):
        return None
    return cut.inputs[0]


def thirds(body: Body, *values: ir.Value | None) -> tuple[ir.Value | None, ...]:
    """Query, key and value, or the one that they are equal pieces of."""
    split = split_of(body, values)
    return values if split is None or len(set(split[1])) != 1 else (split[0], None, None)


def _refuses(body: Body, node: ir.Node) -> str | None:
    query, key, value, bias = (v.shape if v is not None else None for v in node.inputs[:4])
    given = node.attributes
    if query is None or key is None or value is None or bias is None:
        return "its sizes are not known"
    if not all(len(shape) == 4 for shape in (query, key, value, bias)):
        return "heads are no axis of their own, or the bias has other than four"
    if len(node.inputs) > 4 or len(node.outputs) > 1 or given.get_int("is_causal", 0) != 0:
        return "it has a cache, scores that are read, or an order beside the bias"
    if given.get_float("softcap", 0.0) or "scale" not in given:
        return "it has a softcap, or no scale"
    if type_of(body, node.inputs[0]) not in (ir.DataType.FLOAT, None):
        return "the kernel reads fp32 alone"
    if node.inputs[3] is not None and node.inputs[3].dtype != ir.DataType.FLOAT:
        return "what goes in beside query, key and value is no bias in fp32"
    if not isinstance(query[1], int) or {query[1]} != {key[1], value[1]}:
        return "heads of keys and values are not those of queries"
    if not isinstance(query[3], int) or {query[3]} != {key[3], value[3]} or query[3] % 8:
        return "heads of keys and values differ, or are no multiple of 8"
    wanted = zip(list(bias)[:3], list(query)[:3], strict=True)
    if bias[3] != key[2] or any(have not in (1, size) for have, size in wanted):
        return "the bias is not (batch, heads, queries, keys), or 1 of them"
    return None


def _side_by_side(body: Body, node: ir.Node, width: int) -> ir.Node | None:
    """The Reshape behind attention, and behind the Transpose between."""
    turned = only_reader(node.outputs[0])
    if perm_of(turned) != SEQUENCE_MAJOR or turned is None:
        return None
    joined = only_reader(turned.outputs[0], "Reshape")
    if joined is None or not keeps_two(body, joined):
        return None
    made = joined.outputs[0]
    sizes = ints_of(body, joined.inputs[1])
    last = made.shape[-1] if made.shape is not None else sizes[-1] if sizes else None
    return joined if last in (width, -1) and rank_of(body, made) == 3 else None
