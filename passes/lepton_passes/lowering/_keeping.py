"""Have the nodes of a body compute for kept positions alone (``_kept.py`` says which can).

What they read of others is cut, rows are laid out as often as there are, and our attention is told
how many queries are wanted, or of how many tokens it is given the last.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.lowering._kept import Moved, chooses, follows
from lepton_passes.lowering._positions import Form
from lepton_passes.match import made_by, only_reader

__all__ = ["keep", "keep_arguments", "shorten"]

KEPT = {Form.SEQUENCE: ir.SymbolicDim("kept"), Form.ROWS: ir.SymbolicDim("kept_rows")}
# Inputs of our attention: behind both a bias, or nothing, may stand.
_COUNT, _TOKENS = 11, 13
_Use = tuple[ir.Node, int]


def keep(body: Body, moved: Moved, count: ir.Value, tokens: ir.Value | None) -> None:
    """Let the nodes read kept positions, and our attention know which.

    Args:
        count: how many positions are kept, 0 for all; an int64 scalar of the main graph.
        tokens: how many there are, int64; of the main graph. Not needed where nothing ``follows``.
    """
    count = body.lift("count", [count] * body.times)
    given = () if body.function is None else moved.arguments
    for value in moved.outside:
        if value in given:
            shorten(value)
        elif not _is_kept(value):
            uses = [(use.node, use.idx) for use in value.uses() if use.node in moved.nodes]
            _keep_for(body, value, uses, count)
    for node in moved.nodes:
        if chooses(node):
            _tell(node, _COUNT, count)
        if follows(node):
            assert tokens is not None
            _tell(node, _TOKENS, body.lift("tokens", [tokens] * body.times))
        if node.op_type == "Reshape" and _joins_rows(moved, node):
            _reshape(body, moved, node)
        if node.op_type == "Expand":
            _repeat(body, moved, node)
        for value in node.outputs:
            if value in moved.forms and node.op_type != "Shape":
                shorten(value, moved.forms[value])


def keep_arguments(main: Body, uses: Iterable[_Use], count: ir.Value) -> None:
    """Cut what calls are given, if what makes it has not been. One tensor that all layers take a
    piece of (Gemma 4 E2B) is cut in front of those pieces, and once."""
    found: dict[ir.Value, list[_Use]] = {}
    for node, index in uses:
        value = node.inputs[index]
        assert value is not None
        piece = made_by(value, "Gather")
        if _is_kept(value):
            continue
        if piece is not None and _takes_a_piece(piece):
            shorten(value)
            node, index, value = piece, 0, piece.inputs[0]
            assert value is not None
        found.setdefault(value, []).append((node, index))
    for value, reads in found.items():
        _keep_for(main, value, reads, count)


def _keep_for(body: Body, value: ir.Value, uses: list[_Use], count: ir.Value) -> None:
    """Kept positions of a value, for some of its readers."""
    order = {node: index for index, node in enumerate(body.nodes())}
    first = min((node for node, _ in uses), key=order.__getitem__)
    kept = body.emit(first, "KeepLast", [value, count], domain=DIALECT).outputs[0]
    kept.type, kept.shape = value.type, value.shape
    shorten(kept)
    for node, index in uses:
        node.replace_input_with(index, kept)


def _joins_rows(moved: Moved, node: ir.Node) -> bool:
    """Whether it makes a sequence of rows."""
    sequence = moved.forms[node.outputs[0]] is Form.SEQUENCE
    return sequence and moved.forms.get(node.inputs[0]) is Form.ROWS


def _is_kept(value: ir.Value) -> bool:
    """Whether what makes it has been told so."""
    return value.shape is not None and value.shape[Form.SEQUENCE] == KEPT[Form.SEQUENCE]


def _takes_a_piece(gather: ir.Node) -> bool:
    """Whether it takes one of several parts of each position, for one reader."""
    behind = gather.attributes.get_int("axis", 0) > Form.SEQUENCE
    return behind and only_reader(gather.outputs[0]) is not None


def _tell(node: ir.Node, place: int, value: ir.Value) -> None:
    node.resize_inputs(max(len(node.inputs), place + 1))
    node.replace_input_with(place, value)


def _reshape(body: Body, moved: Moved, node: ir.Node) -> None:
    """Make a sequence of as many positions as the rows were made of."""
    source = _sequence(moved, node)
    width = node.outputs[0].shape
    assert width is not None
    both = body.emit(node, "Shape", [source], {"start": 0, "end": 2}).outputs[0]
    last = body.constant_node(node, np.array([width[2]], np.int64))
    shape = body.emit(node, "Concat", [both, last], {"axis": 0}).outputs[0]
    node.replace_input_with(1, shape)


def _repeat(body: Body, moved: Moved, node: ir.Node) -> None:
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
    shorten(made, Form.ROWS)
    reader.replace_input_with(use.idx, made)


def _sequence(moved: Moved, node: ir.Node) -> ir.Value | None:
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


def shorten(value: ir.Value, form: Form = Form.SEQUENCE) -> None:
    """Say in the shape that positions are left out: memory is planned by its names."""
    if value.shape is not None:
        sizes = list(value.shape)
        sizes[form] = KEPT[form]
        value.shape = ir.Shape(sizes)
