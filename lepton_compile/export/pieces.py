"""A tensor that is made empty and filled piece by piece becomes one that is put together.

    Before   y = new_empty(..); y[..., :8] = a; y[..., 8:] = b
    After    y = cat([a, b], -1)

A graph has values, not places to write into. Whatever does not fit exactly (a piece that is left
out, one that is written twice, a reader in between) stays as it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from lepton_compile.export.program import op_name, same_shape

__all__ = ["put_together"]

_COPIES = ("aten.copy_", "lepton.write_")
_EMPTY = ("aten.empty", "aten.new_empty", "aten.empty_like")


@dataclass(frozen=True)
class _Piece:
    """``start .. end`` of axis ``axis``, which ``copy`` fills through ``views``."""

    axis: int
    start: int
    end: int
    views: list[fx.Node]
    copy: fx.Node

    @property
    def source(self) -> fx.Node:
        source = self.copy.args[1]
        assert isinstance(source, fx.Node)
        return source


def put_together(module: fx.GraphModule) -> None:
    """Rewrite the graph of ``module``, and those inside it, in place."""
    for inner in module.modules():
        if isinstance(inner, fx.GraphModule):
            for node in list(inner.graph.nodes):
                if node.op == "call_function" and op_name(node) in _EMPTY:
                    _put_together(inner.graph, node)


def _put_together(graph: fx.Graph, empty: fx.Node) -> None:
    found = {user: _piece(empty, user) for user in empty.users}
    pieces = sorted((p for p in found.values() if p is not None), key=lambda piece: piece.start)
    if not _complete(empty, pieces):
        return
    last = max(piece.copy for piece in pieces)
    readers = [user for user, piece in found.items() if piece is None]
    if any(reader < last for reader in readers):
        return
    with graph.inserting_after(last):
        sources = [piece.source for piece in pieces]
        whole = graph.call_function(torch.ops.aten.cat.default, (sources, pieces[0].axis))
    whole.meta = dict(empty.meta)
    for reader in readers:
        reader.replace_input_with(empty, whole)
    for piece in pieces:
        graph.erase_node(piece.copy)
        for view in reversed(piece.views):
            graph.erase_node(view)
    graph.erase_node(empty)


def _piece(empty: fx.Node, first: fx.Node) -> _Piece | None:
    """What one user of the empty tensor fills, if that is all it does."""
    views, cuts = [], []
    shape, node = empty.meta["val"].shape, first
    while op_name(node) == "aten.slice" and len(node.users) == 1:
        views.append(node)
        cut = _cut(node)
        if cut is None:
            return None
        cuts += [cut] if cut[1:] != (0, sys.maxsize) else []
        node = next(iter(node.users))
    if op_name(node) not in _COPIES or not views or node.args[0] is not views[-1] or node.users:
        return None
    source = node.args[1]
    if len(cuts) != 1 or not isinstance(source, fx.Node):
        return None
    axis, start, end = cuts[0]
    size = shape[axis]
    if not all(isinstance(each, int) for each in (start, end, size)):
        return None
    given, wanted = source.meta["val"], views[-1].meta["val"]
    if given.dtype != wanted.dtype or not same_shape(given.shape, wanted.shape):
        return None  # broadcast, or of another type
    return _Piece(axis % len(shape), start, min(end, size), views, node)


def _cut(view: fx.Node) -> tuple[int, Any, Any] | None:
    """Axis, start and end of a slice; None where it leaves rows out in between."""
    given: list[Any] = list(view.args[1:])
    axis, start, end, step = given + [0, 0, sys.maxsize, 1][len(given) :]
    if step != 1:
        return None
    return axis, 0 if start is None else start, sys.maxsize if end is None else end


def _complete(empty: fx.Node, pieces: list[_Piece]) -> bool:
    """Whether the pieces, in order, are all of it."""
    if not pieces or len({piece.axis for piece in pieces}) != 1:
        return False
    size = empty.meta["val"].shape[pieces[0].axis]
    ends = [0, *(piece.end for piece in pieces)]
    return ends[-1] == size and all(p.start == e for p, e in zip(pieces, ends, strict=False))
