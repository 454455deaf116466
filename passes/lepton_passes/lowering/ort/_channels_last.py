"""Move the transposes of channels and sequence ("turns") towards each other until they meet.

Models turn the channels in front of the sequence for a convolution, and back behind it. Where the
convolution takes them last, so can what stands between it and the two turns.

    Before   Transpose -> Split -> Mul -> Transpose -> CausalConv -> Transpose -> Mul -> Transpose
    After    Split -> Mul -> CausalConv -> Mul

Moved past: a Split of the channels, Sigmoid, and a sum or product of two that are both turned. Two
in a row go away.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.match import made_by, perm_of, readers

__all__ = ["TURN", "cancel_turns", "turned_shape"]

TURN = (0, 2, 1)


def turned_shape(value: ir.Value | None) -> ir.Shape | None:
    """The shape of a value of three axes behind a turn."""
    if value is None or value.shape is None or len(value.shape) != len(TURN):
        return None
    return ir.Shape([value.shape[i] for i in TURN])


def cancel_turns(body: Body) -> None:
    """Move all turns of a body towards their readers."""
    pending = [node for node in body.nodes("Transpose") if perm_of(node) == TURN]
    while pending:
        turn = pending.pop()
        for user in readers(turn.outputs[0]):
            pending += _past(body, turn, user)


def _past(body: Body, turn: ir.Node, user: ir.Node) -> list[ir.Node]:
    """Move past one reader; returns the turns behind it."""
    x = turn.inputs[0]
    if x is None or user.domain:
        return []
    if perm_of(user) == TURN:
        if body.can_replace(user.outputs[0], x):
            body.replace(user.outputs[0], x)
        return []
    if user.op_type == "Split" and user.attributes.get_int("axis", 0) in (1, -2):
        return _turned(body, user, [x, *user.inputs[1:]], axis=-1)
    if user.op_type == "Sigmoid":
        return _turned(body, user, [x])
    if user.op_type in ("Add", "Mul"):
        sources = [made_by(value, "Transpose") for value in user.inputs]
        if all(perm_of(source) == TURN for source in sources):
            return _turned(body, user, [source.inputs[0] for source in sources if source])
    return []


def _turned(
    body: Body, user: ir.Node, inputs: list[ir.Value | None], axis: int | None = None
) -> list[ir.Node]:
    """The same op in front of the turn."""
    moved = body.emit(user, user.op_type, inputs, outputs=len(user.outputs))
    moved.attributes.update(user.attributes)
    if axis is not None:
        moved.attributes["axis"] = ir.AttrInt64("axis", axis)
    turns = []
    for old, new in zip(list(user.outputs), moved.outputs, strict=True):
        new.type, new.shape = old.type, turned_shape(old)
        turns.append(body.emit(user, "Transpose", [new], {"perm": TURN}))
        body.replace(old, turns[-1].outputs[0])
    body.graph.remove(user, safe=True)
    return turns
