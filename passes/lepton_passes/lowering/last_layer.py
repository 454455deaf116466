"""Compute for kept positions alone what nothing else reads: most of a decoder's last layer.

    Before   h = .. GroupQueryAttention(..), MatMul, norms, sums ..
             KeepLast(h, count)
    After    .. GroupQueryAttention(.., count), KeepLast(residual, count), MatMul, norms, sums ..

A prompt asks for the logits of its last position, and the last layer's keys and values have to be
there for all: what comes behind its attention, and with our own kernel the queries, do not. That is
one layer in 18 of Gemma 3 270M, but for its projections.
KeepLast moves in front of nodes that nothing reads but each other and itself, and that keep
positions apart (``_positions.py``), also where they are rows, as in front of a mixture of experts:

    Before   r = Reshape(x, [-1, W]);  e = Experts(r, ..);  y = Reshape(e, [batch, sequence, W])
    After    the same behind KeepLast(x, count), y with as many positions as that has

The last layer gets a function of its own.
Refuses: an op that is not known to keep positions apart, or works along theirs; a constant that
differs between them; sizes that are not known; a last layer that something else reads. What
stands behind those is moved all the same; norms and sums alone are not worth it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, LAYER_DOMAIN, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering._positions import Form, positions
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerLastLayer"]

ATTENTION = "GroupQueryAttention"
KEPT = {Form.SEQUENCE: ir.SymbolicDim("kept"), Form.ROWS: ir.SymbolicDim("kept_rows")}
_COUNT = 11  # input of our attention
# Where a layer has come to all positions: states, and heads.
_ENDS = frozenset({"CausalConvWithState", "Transpose"})
_HEADS = 4  # axes of what is laid out in heads
_LINEAR = ("Experts", "MatMul")


@dataclass
class _Moved:
    """Nodes of one body that compute for kept positions alone, last first.

    Attributes:
        forms: how what they make and read is laid out, where it has positions.
        stops: nodes that are left whole, and why.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    forms: dict[ir.Value | None, Form] = field(default_factory=dict)
    stops: list[tuple[ir.Node, str]] = field(default_factory=list)

    @property
    def outside(self) -> list[ir.Value]:
        """Values with positions that they read and do not make."""
        made = {out for node in self.nodes for out in node.outputs}
        read = {value for node in self.nodes for value in node.inputs if not _is_attention(node)}
        read -= {None, *made}
        return [value for value in self.forms if value is not None and value in read]

    @property
    def saves(self) -> bool:
        """Whether it is more than norms and sums."""
        return any(node.op_type in _LINEAR for node in self.nodes)


class LowerLastLayer(LeptonPass):
    """Compute the last layer for kept positions alone."""

    name = "lower-last-layer"
    summary = "Of the last layer, what only kept positions need, for them alone"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        keeps = body.nodes("KeepLast", domain=DIALECT)
        if body.function is not None or len(keeps) != 1:
            return
        (keep,) = keeps
        hidden, count = keep.inputs
        assert hidden is not None
        assert count is not None
        moved = _moved(body, hidden, keep)
        for value in moved.outside or [hidden]:
            self._into_layer(body, value, count, {keep, *moved.nodes})
        self._report(body, moved)
        if self.fired or moved.saves:
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
            self.refuse(main, call, "all positions of what it makes are read elsewhere, too")
            return
        calls = [n for n in main.model.graph if n.op_identifier() == call.op_identifier()]
        shared = Body(main.model, main.model.functions[call.op_identifier()], calls)
        place = call.outputs.index(value)
        found = _moved(shared, shared.graph.outputs[place], None)
        if not found.nodes:
            self._report(shared, found)
            return
        layer = next(
            body for body in shared.split(lambda index: calls[index] is call) if call in body.calls
        )
        moved = _moved(layer, layer.graph.outputs[place], None)
        self._report(layer, moved)
        _keep(layer, moved, layer.lift("count", [count]))
        _shorten(value)
        self.fire(layer)

    def _report(self, body: Body, moved: _Moved) -> None:
        for node, reason in moved.stops:
            self.refuse(body, node, reason)


def _moved(body: Body, end: ir.Value, reader: ir.Node | None) -> _Moved:
    """What ``end`` is computed by that no position but its own goes into."""
    barred: set[ir.Node] = set()
    stops: list[tuple[ir.Node, str]] = []
    while True:
        moved = _walked(body, end, reader, barred)
        rows = [value for value in moved.outside if moved.forms[value] is Form.ROWS]
        if not rows:
            moved.stops += stops
            return moved
        # Rows cannot be cut: without those that come from a sequence, what reads them stays whole.
        stops += moved.stops
        barred |= _into_sequence(moved, rows)


def _walked(body: Body, end: ir.Value, reader: ir.Node | None, barred: set[ir.Node]) -> _Moved:
    moved, inside = _Moved(forms={end: Form.SEQUENCE}), {reader}
    for node in reversed(body.nodes()):
        out = next((value for value in node.outputs if value in moved.forms), None)
        if out is None or node in barred or not _only_for(node, end, inside):
            continue
        form = moved.forms[out]
        found = {} if _is_attention(node) else positions(body, node, out, form)
        read = {} if isinstance(found, str) else {node.inputs[i]: each for i, each in found.items()}
        if any(moved.forms.get(value, each) is not each for value, each in read.items()):
            found = "it reads rows as a sequence"
        if isinstance(found, str):
            if not _is_end(body, node):
                moved.stops.append((node, found))
            continue
        moved.nodes.append(node)
        moved.forms.update(dict.fromkeys(node.outputs[: 1 if _is_attention(node) else None], form))
        if not _is_attention(node):  # it reads all positions of what it is made from
            inside.add(node)
        moved.forms.update(read)
    return moved


def _into_sequence(moved: _Moved, rows: list[ir.Value]) -> set[ir.Node]:
    """Where these rows, and what is made of them, become a sequence."""
    found, reached = set(), set(rows)
    for node in reversed(moved.nodes):
        if not reached & set(node.inputs):
            continue
        if any(moved.forms.get(value) is Form.SEQUENCE for value in node.outputs):
            found.add(node)
        else:
            reached |= set(node.outputs)
    return found


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


def _is_end(body: Body, node: ir.Node) -> bool:
    """Whether it is where a layer looks at other positions, or begins: nothing is lost there."""
    if node.domain == LAYER_DOMAIN or "Attention" in node.op_type or node.op_type in _ENDS:
        return True
    if node.op_type == "Gather":
        return body.weights(node.inputs[0]) is not None  # by token, or by position
    source = node.inputs[0] if node.op_type == "Reshape" else None
    return source is not None and source.shape is not None and len(source.shape) == _HEADS


def _keep(body: Body, moved: _Moved, count: ir.Value) -> None:
    """Let the nodes read kept positions, and our attention know which."""
    order = {node: index for index, node in enumerate(body.nodes())}
    for value in moved.outside:
        if value.shape is not None and value.shape[1] == KEPT[Form.SEQUENCE]:
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
            node.resize_inputs(max(len(node.inputs), _COUNT + 1))  # a bias stands behind it
            node.replace_input_with(_COUNT, count)
        if node.op_type == "Reshape" and moved.forms[node.outputs[0]] is Form.SEQUENCE:
            _reshape(body, moved, node)
        if node.op_type == "Expand":
            _repeat(body, moved, node)
        for value in node.outputs:
            if value in moved.forms and node.op_type != "Shape":
                _shorten(value, moved.forms[value])


def _reshape(body: Body, moved: _Moved, node: ir.Node) -> None:
    """Make a sequence of as many positions as the rows were made of."""
    source = _sequence(moved, node)
    width = node.outputs[0].shape
    assert width is not None
    both = body.emit(node, "Shape", [source], {"start": 0, "end": 2}).outputs[0]
    last = body.constant_node(node, np.array([width[2]], np.int64))
    shape = body.emit(node, "Concat", [both, last], {"axis": 0}).outputs[0]
    node.replace_input_with(1, shape)


def _repeat(body: Body, moved: _Moved, node: ir.Node) -> None:
    """Make as many rows as there are: those of what is repeated, or beside what it is read with."""
    if moved.forms.get(node.inputs[1]) is Form.ROWS:  # sizes of what is moved
        return
    sizes = node.outputs[0].shape
    assert sizes is not None
    columns = np.array(list(sizes)[1:], np.int64)
    if moved.forms.get(node.inputs[0]) is Form.ROWS:
        node.replace_input_with(1, body.constant_node(node, np.array([1, *columns])))
        return
    (use,) = node.outputs[0].uses()
    reader = use.node
    rows = body.emit(reader, "Shape", [reader.inputs[1]], {"start": 0, "end": 1}).outputs[0]
    shape = body.emit(reader, "Concat", [rows, body.constant_node(reader, columns)], {"axis": 0})
    made = body.emit(reader, "Expand", [node.inputs[0], shape.outputs[0]]).outputs[0]
    made.type, made.shape = node.outputs[0].type, node.outputs[0].shape
    _shorten(made, Form.ROWS)
    reader.replace_input_with(use.idx, made)


def _sequence(moved: _Moved, node: ir.Node) -> ir.Value | None:
    """The sequence that these rows are made of."""
    for value in node.inputs:
        if value is None or moved.forms.get(value) is not Form.ROWS:
            continue
        maker = value.producer()
        assert maker is not None
        if maker.op_type == "Reshape" and moved.forms.get(maker.inputs[0]) is not Form.ROWS:
            return maker.inputs[0]
        if (found := _sequence(moved, maker)) is not None:
            return found
    return None


def _shorten(value: ir.Value, form: Form = Form.SEQUENCE) -> None:
    """Say in the shape that positions are left out: memory is planned by its names."""
    if value.shape is not None:
        sizes = list(value.shape)
        sizes[form] = KEPT[form]
        value.shape = ir.Shape(sizes)
