"""Where the keys of an attention come from: followed back to the cache, whatever lies between.

Between an attention and its cache may be ops that move, cast, scale or turn keys one by one, the
border of a layer function in either direction, and the slice that takes the filled part.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body, bodies
from lepton_passes.match import input_at, rank_of

__all__ = ["CONCAT", "SLICE", "WRITES", "origins"]

WRITES = frozenset({"TensorScatter", "TRT_KVCacheUpdate"})
"""Ops that write a cache of fixed length."""

CONCAT, SLICE = "Concat", "Slice"
"""A cache that grows; a part of a cache."""

# fmt: off
_MOVES = frozenset({
    "Cast", "DequantizeLinear", "Expand", "Flatten", "Identity", "Mul", "QuantizeLinear", "Reshape",
    "RotaryEmbedding", "Squeeze", "Transpose", "Unsqueeze",
})
# fmt: on
_WIDEST_RANK = 4  # query, key and value in one tensor have an axis more


def origins(body: Body, value: ir.Value | None) -> set[str]:
    """Types of the ops that ``value`` comes from, of those above; empty for what is no cache."""
    if value is None:
        return set()
    functions = {each.function.identifier(): each for each in bodies(body.model) if each.function}
    found: set[str] = set()
    seen: set[ir.Value] = set()
    pending = [(body, value)]
    while pending:
        where, each = pending.pop()
        if each in seen:
            continue
        seen.add(each)
        node = each.producer()
        if node is None:
            pending += _arguments(where, each)
        elif node.domain == LAYER_DOMAIN:
            inner = functions[node.op_identifier()]
            pending.append((inner, inner.graph.outputs[list(node.outputs).index(each)]))
        elif node.op_type in WRITES:
            found.add(node.op_type)
        elif node.op_type in _MOVES and not node.domain:
            pending += _inputs(where, node, 1)
        elif node.op_type in (CONCAT, SLICE) and not node.domain:
            found |= {node.op_type} if _along_keys(where, node) else set()
            pending += _inputs(where, node, 1 if node.op_type == SLICE else len(node.inputs))
    return found


def _inputs(body: Body, node: ir.Node, count: int) -> list[tuple[Body, ir.Value]]:
    return [(body, value) for value in node.inputs[:count] if value is not None]


def _arguments(body: Body, value: ir.Value) -> list[tuple[Body, ir.Value]]:
    """What the calls of a layer pass for an input of it; nothing at the border of the network."""
    if body.function is None:
        return []
    main = Body(body.model)
    return [(main, each) for each in body.arguments(value) or ()]


def _along_keys(body: Body, node: ir.Node) -> bool:
    """Whether a node cuts or joins keys, and not widths of heads or what is packed beside keys."""
    rank = rank_of(body, node.inputs[0])
    if rank is not None and rank > _WIDEST_RANK:
        return False
    if node.op_type == CONCAT:
        axes = [node.attributes.get_int("axis", 0)]
    else:
        given = body.constant(input_at(node, 3))
        axes = [int(axis) for axis in given.reshape(-1)] if given is not None else [0]
    return any(axis != -1 and (rank is None or axis != rank - 1) for axis in axes)
