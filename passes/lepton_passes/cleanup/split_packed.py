"""Say "cut the last axis into pieces" with one Split.

    Before   Slice(x, 0, 64, axis), Slice(x, 64, 96, axis), Slice(x, 96, end, axis)
    After    Split(x, [64, 32, 32], axis=-1)
    Before   Reshape(0,0,3,h,d) -> Split(axis=-3, 3) -> Squeeze(-3), each
    After    Split(3 pieces of h*d, axis=-1) -> Reshape(0,0,h,d), each

Refuses: slices with steps, gaps or overlaps; a width that is unknown; a Reshape that does not keep
the first two axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import (
    input_at,
    ints_of,
    keeps_two,
    made_by,
    only_reader,
    rank_of,
    width_of,
)

__all__ = ["SplitPacked"]


@dataclass(frozen=True)
class _Piece:
    node: ir.Node
    start: int
    stop: int


class SplitPacked(LeptonPass):
    """Cut packed projections with one Split of the last axis."""

    name = "split-packed"
    summary = "Cut packed projections with one Split"

    def rewrite(self, body: Body) -> None:
        by_source: dict[ir.Value, list[ir.Node]] = {}
        for node in body.nodes("Slice"):
            source = node.inputs[0]
            if source is not None:
                by_source.setdefault(source, []).append(node)
        for source, slices in by_source.items():
            if len(slices) > 1:
                self._slices(body, source, slices)
        for node in body.nodes("Split"):
            self._stacked(body, node)

    def _slices(self, body: Body, source: ir.Value, slices: list[ir.Node]) -> None:
        width, rank = width_of(source), rank_of(body, source)
        found = [_piece(body, node, rank, width) for node in slices]
        pieces = sorted((p for p in found if p is not None), key=lambda p: p.start)
        if len(pieces) < len(slices):
            return
        if width is None:
            self.refuse(body, slices[0], "the width of what is cut is unknown")
            return
        edges = [p.start for p in pieces] + [width]
        if edges[0] != 0 or any(p.stop != e for p, e in zip(pieces, edges[1:], strict=True)):
            self.refuse(body, slices[0], "the slices leave gaps or overlap")
            return
        first = next(n for n in body.graph if n in slices)
        sizes = body.constant_node(first, np.diff(edges).astype(np.int64))
        split = body.emit(first, "Split", [source, sizes], {"axis": -1}, outputs=len(pieces))
        for piece, out in zip(pieces, split.outputs, strict=True):
            body.replace(piece.node.outputs[0], out)
        self.fire(body)

    def _stacked(self, body: Body, node: ir.Node) -> None:
        reshape = made_by(node.inputs[0], "Reshape")
        shape = ints_of(body, reshape.inputs[1]) if reshape is not None else None
        if reshape is None or shape is None or len(shape) != 5 or min(shape[2:]) <= 0:
            return
        squeezes = [only_reader(out, "Squeeze") for out in node.outputs]
        if node.attributes.get_int("axis", 0) not in (-3, 2) or len(node.outputs) != shape[2]:
            return
        if any(s is None or _axes(body, s) not in ([2], [-3]) for s in squeezes):
            self.refuse(body, node, "a piece keeps its axis of one")
            return
        if not keeps_two(body, reshape):
            self.refuse(body, node, "the Reshape in front does not keep the first two axes")
            return
        if rank_of(body, reshape.inputs[0]) != 3:
            self.refuse(body, node, "what is cut does not have three axes")
            return
        count, heads, width = shape[2:]
        sizes = body.constant_node(node, np.full(count, heads * width, dtype=np.int64))
        split = body.emit(
            node, "Split", [reshape.inputs[0], sizes], {"axis": -1}, outputs=len(node.outputs)
        )
        target = body.constant_node(node, np.array([0, 0, heads, width], dtype=np.int64))
        for squeeze, out in zip(squeezes, split.outputs, strict=True):
            if squeeze is not None:
                full = body.emit(node, "Reshape", [out, target])
                body.replace(squeeze.outputs[0], full.outputs[0])
        self.fire(body)


def _axes(body: Body, squeeze: ir.Node) -> list[int] | None:
    return ints_of(body, input_at(squeeze, 1))


def _piece(body: Body, node: ir.Node, rank: int | None, width: int | None) -> _Piece | None:
    """A slice of the last axis with step 1; ``None`` for any other."""
    values = [ints_of(body, v) for v in node.inputs[1:]]
    if len(values) < 3 or any(v is None or len(v) != 1 for v in values):
        return None
    start, stop, axis, *step = (v[0] for v in values if v is not None)
    if axis not in (-1, (rank or 0) - 1) or step not in ([], [1]) or start < 0:
        return None
    return _Piece(node, start, min(stop, width) if width is not None else stop)
