"""Compute for kept positions alone what nothing else reads: most of a decoder's last layer, and all
of layers behind it that read the cache of another.

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

Layers without keys of their own (20 of 35 in Gemma 4 E2B) are told of how many tokens they are
given the last, and KeepLast goes on to the layer before:

    Before   y = layer(x, keys, values, ..);  KeepLast(y, count)
    After    y = layer(KeepLast(x, count), keys, values, .., tokens)

Layers that are cut get a function of their own.
Refuses: an op that is not known to keep positions apart, or works along theirs; a constant that
differs between them; sizes that are not known; a last layer that something else reads. What
stands behind those is moved all the same; norms and sums alone are not worth it.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lepton_passes.body import DIALECT, LAYER_DOMAIN, Body, bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering._keeping import keep, keep_arguments, shorten
from lepton_passes.lowering._kept import Moved, follows, moved_behind

__all__ = ["LowerLastLayer"]


@dataclass
class _Cut:
    """Calls of one function of which one result is wanted for kept positions alone."""

    place: int
    calls: list[ir.Node]


class LowerLastLayer(LeptonPass):
    """Compute the last layer for kept positions alone, and those behind it without keys."""

    name = "lower-last-layer"
    summary = "Of the last layers, what only kept positions need, for them alone"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        keeps = body.nodes("KeepLast", domain=DIALECT)
        if body.function is not None or len(keeps) != 1:
            return
        (last,) = keeps
        hidden, count = last.inputs
        assert hidden is not None
        assert count is not None
        shares = any(follows(node) for each in bodies(body.model) for node in each.nodes())
        whole = _of_all_positions(body, hidden) if shares else None
        if shares and whole is None:
            self.refuse(body, last, "no input of the model says how many tokens there are")
            return
        moved = moved_behind(body, hidden, last)
        cuts = self._cuts(body, moved.outside or [hidden], {last, *moved.nodes})
        self._report(body, moved)
        if not cuts and not moved.saves:
            return
        tokens = None if whole is None else _count(body, whole)
        uses = [use for cut in cuts for use in self._cut(body, cut, count, tokens)]
        keep_arguments(body, uses, count)
        keep(body, moved, count, tokens)
        body.replace(last.outputs[0], hidden)
        self.fired = max(self.fired, 1)  # whether it went into a layer or not

    def _cuts(self, main: Body, values: list[ir.Value], readers: set[ir.Node]) -> list[_Cut]:
        """Layers that can be cut, from that which makes one of ``values`` on to those before."""
        found: dict[tuple[object, int], _Cut] = {}
        pending = [(value, readers) for value in values]
        while pending:
            value, known = pending.pop()
            call = value.producer()
            if call is None or call.domain != LAYER_DOMAIN:
                continue
            if value.is_graph_output() or {use.node for use in value.uses()} - known:
                self.refuse(main, call, "all positions of what it makes are read elsewhere, too")
                continue
            layer, place = _layer(main, call), call.outputs.index(value)
            moved = moved_behind(layer, layer.graph.outputs[place], None)
            if not moved.nodes:
                self._report(layer, moved)
                continue
            key = call.op_identifier(), place
            found.setdefault(key, _Cut(place, [])).calls.append(call)
            inner = [layer.graph.inputs.index(each) for each in moved.arguments]
            outer = [call.inputs[index] for index in inner]
            pending += [(each, {call}) for each in outer if each is not None]
        return list(found.values())

    def _cut(
        self, main: Body, cut: _Cut, count: ir.Value, tokens: ir.Value | None
    ) -> list[tuple[ir.Node, int]]:
        """Cut these calls; returns what they are to be given for kept positions alone."""
        whole = _layer(main, cut.calls[0])
        calls = whole.calls
        parts = whole.split(lambda index: calls[index] in cut.calls)
        layer = next(part for part in parts if cut.calls[0] in part.calls)
        moved = moved_behind(layer, layer.graph.outputs[cut.place], None)
        self._report(layer, moved)
        given = [layer.graph.inputs.index(each) for each in moved.arguments]
        keep(layer, moved, count, tokens)
        for call in layer.calls:
            shorten(call.outputs[cut.place])
        self.fire(layer)
        return [(call, index) for call in layer.calls for index in given]

    def _report(self, body: Body, moved: Moved) -> None:
        for node, reason in moved.stops:
            self.refuse(body, node, reason)


def _layer(main: Body, call: ir.Node) -> Body:
    """The function of a layer, with all its calls."""
    return next(body for body in bodies(main.model) if call in body.calls)


def _of_all_positions(main: Body, hidden: ir.Value) -> ir.Value | None:
    """An input of the model that has as many positions as ``hidden``."""
    length = hidden.shape[1] if hidden.shape is not None else None
    for value in main.graph.inputs if length is not None else ():
        if value.shape is not None and length in list(value.shape)[1:2]:
            return value
    return None


def _count(main: Body, value: ir.Value) -> ir.Value:
    """How many positions a value has."""
    made = main.emit(main.nodes()[0], "Shape", [value], {"start": 1, "end": 2}).outputs[0]
    made.type, made.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
    return made
