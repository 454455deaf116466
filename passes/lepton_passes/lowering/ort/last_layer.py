"""Compute for kept positions alone what nothing else reads: most of a decoder's last layer.

    Before   h = .. GroupQueryAttention(..), MatMul, norms, sums ..
             KeepLast(h, count)
    After    .. GroupQueryAttention(.., count), KeepLast(residual, count), MatMul, norms, sums ..

A prompt asks for the logits of its last position, and the last layer's keys and values have to be
there for all: what comes behind its attention, and with our own kernel the queries, do not. That is
one layer in 18 of Gemma 3 270M, but for its projections.
What it moves in front of is read by nothing but what it moves, keeps positions apart, and has three
axes. The last layer gets a function of its own.
Refuses: nothing. It stops where that ends, and does nothing for norms and sums alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import NORMS, rank_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerLastLayer"]

DIALECT = "ai.lepton"
MICROSOFT = "com.microsoft"
ATTENTION = "GroupQueryAttention"
KEPT = ir.SymbolicDim("kept")
# Inputs that have positions. Of the others there is one for all of them.
_FIRST = ("MatMul", "Split", "Gelu", "Sigmoid", "Tanh", "Relu", *NORMS)
_BOTH = ("Add", "Sub", "Mul", "Div")
_OTHERS = {
    (CPU_DOMAIN, "Normalization"): 1,
    (CPU_DOMAIN, "SkipNormalization"): 2,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): 2,
    (MICROSOFT, "SkipLayerNormalization"): 2,
    (MICROSOFT, "QuickGelu"): 1,
    (MICROSOFT, "FastGelu"): 1,
}
_COUNT = 11  # input of our attention


@dataclass
class _Moved:
    """Nodes of one body that compute for kept positions alone, last first.

    Attributes:
        outside: values with positions that they read and do not make.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    outside: list[ir.Value] = field(default_factory=list)


class LowerLastLayer(LeptonPass):
    """Compute the last layer for kept positions alone."""

    name = "lower-last-layer"
    summary = "Of the last layer, what only kept positions need, for them alone"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        keeps = [n for n in body.nodes("KeepLast") if n.domain == DIALECT]
        if body.function is not None or len(keeps) != 1:
            return
        (keep,) = keeps
        hidden, count = keep.inputs
        assert hidden is not None
        assert count is not None
        moved = _moved(body, hidden, keep)
        for value in list(moved.outside) or [hidden]:
            self._into_layer(body, value, count, {keep, *moved.nodes})
        if self.fired or any(node.op_type == "MatMul" for node in moved.nodes):
            _keep(body, moved, count)
            body.replace(keep.outputs[0], hidden)
            self.fired = 1  # whether it went into a layer or not

    def _into_layer(
        self, main: Body, value: ir.Value, count: ir.Value, readers: set[ir.Node]
    ) -> None:
        """Go on in the layer that makes ``value``, if nothing else reads it."""
        call = value.producer()
        if call is None or call.domain != LAYER_DOMAIN:
            return
        if value.is_graph_output() or {use.node for use in value.uses()} - readers:
            return
        calls = [n for n in main.model.graph if n.op_identifier() == call.op_identifier()]
        shared = Body(main.model, main.model.functions[call.op_identifier()], calls)
        place = call.outputs.index(value)
        if not _moved(shared, shared.graph.outputs[place], None).nodes:
            return
        layer = next(
            body for body in shared.split(lambda index: calls[index] is call) if call in body.calls
        )
        moved = _moved(layer, layer.graph.outputs[place], None)
        _keep(layer, moved, layer.lift("count", [count]))
        _shorten(value)
        self.fire(layer)


def _moved(body: Body, end: ir.Value, reader: ir.Node | None) -> _Moved:
    """What ``end`` is computed by that no position but its own goes into."""
    moved, inside = _Moved(), {reader}
    for node in reversed(body.nodes()):
        places = _places(body, node)
        if places is None or not _only_for(node, end, inside):
            continue
        moved.nodes.append(node)
        if not _is_attention(node):  # it reads all positions of what it is made from
            inside.add(node)
        moved.outside += [v for i in places if (v := node.inputs[i]) is not None]
    made = {id(out) for node in moved.nodes for out in node.outputs}
    moved.outside = [v for v in dict.fromkeys(moved.outside) if id(v) not in made]
    return moved


def _only_for(node: ir.Node, end: ir.Value, inside: set[ir.Node | None]) -> bool:
    """Whether what a node makes is ``end``, or read inside and nowhere else."""
    made = node.outputs[:1] if _is_attention(node) else node.outputs
    for value in made:
        if value.is_graph_output() and value is not end:
            return False
        if any(use.node not in inside for use in value.uses()):
            return False
    return any(value is end or value.uses() for value in made)


def _is_attention(node: ir.Node) -> bool:
    """Whether it is ours, which computes some of its queries when asked."""
    return (node.domain, node.op_type) == (CPU_DOMAIN, ATTENTION)


def _places(body: Body, node: ir.Node) -> tuple[int, ...] | None:
    """Inputs of a node that have positions, which it keeps apart; ``None`` if it does not."""
    if _is_attention(node):
        return ()
    count = _data(node)
    if count is None or not _last_axis(node):
        return None
    ranks = [_rank(body, value) for value in node.inputs[:count]]
    if node.op_type in _BOTH:
        # A vector has no positions, and nothing is known to be in between.
        known = all(rank == 3 or (rank is not None and rank < 2) for rank in ranks)
        places = tuple(i for i, rank in enumerate(ranks) if rank == 3)
        return places if known and places and not _constant(body, node, places) else None
    if any(rank != 3 for rank in ranks):
        return None
    if node.op_type == "MatMul" and _rank(body, node.inputs[1]) != 2:
        return None
    return tuple(range(count))


def _constant(body: Body, node: ir.Node, places: tuple[int, ...]) -> bool:
    return any(body.weights(node.inputs[i]) is not None for i in places)


def _last_axis(node: ir.Node) -> bool:
    """Whether a norm or a Split works along the last axis."""
    if node.op_type != "Split" and node.op_type not in NORMS:
        return True
    return node.attributes.get_int("axis", 0 if node.op_type == "Split" else -1) in (-1, 2)


def _rank(body: Body, value: ir.Value | None) -> int | None:
    """Number of axes, also behind kernels that ``rank_of`` does not know."""
    node = value.producer() if value is not None else None
    if value is None or value.shape is not None or node is None:
        return rank_of(body, value)
    if node.op_type == ATTENTION:
        return 3 if value is node.outputs[0] else 4
    count = 1 if node.op_type in ("Transpose", "DequantizeLinear") else _data(node)
    if count is None:
        return rank_of(body, value)
    ranks = [_rank(body, each) for each in node.inputs[:count]]
    return None if None in ranks else max(rank for rank in ranks if rank is not None)


def _data(node: ir.Node) -> int | None:
    """How many of a node's inputs, the first ones, may have positions."""
    if not node.domain:
        return 1 if node.op_type in _FIRST else 2 if node.op_type in _BOTH else None
    return _OTHERS.get((node.domain, node.op_type))


def _keep(body: Body, moved: _Moved, count: ir.Value) -> None:
    """Let the nodes read kept positions, and our attention know which."""
    order = {node: index for index, node in enumerate(body.nodes())}
    for value in moved.outside:
        if value.shape is not None and value.shape[1] == KEPT:
            continue
        readers = [use for use in value.uses() if use.node in moved.nodes]
        first = min((use.node for use in readers), key=order.__getitem__)
        kept = body.emit(first, "KeepLast", [value, count], domain=DIALECT).outputs[0]
        kept.type, kept.shape = value.type, value.shape
        _shorten(kept)
        for use in readers:
            use.node.replace_input_with(use.idx, kept)
    for node in moved.nodes:
        if _is_attention(node):
            node.resize_inputs(_COUNT + 1)
            node.replace_input_with(_COUNT, count)
        for value in node.outputs[:1] if _is_attention(node) else node.outputs:
            _shorten(value)


def _shorten(value: ir.Value) -> None:
    """Say in the shape that positions are left out: memory is planned by its names."""
    if value.shape is not None:
        value.shape = ir.Shape([value.shape[0], KEPT, *list(value.shape)[2:]])
