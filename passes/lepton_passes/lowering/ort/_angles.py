"""Where the angles of a rotary embedding come from, for kernels that look them up themselves."""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.match import input_at, made_by, width_of

__all__ = ["tables_of"]


def tables_of(body: Body, *turns: ir.Node) -> tuple[ir.Value, ir.Value] | str:
    """The tables of cosines and sines that RotaryEmbedding nodes have the same rows of, or why a
    kernel that looks them up cannot take their place."""
    if not all(node.attributes.get_int("num_heads", 0) for node in turns):
        return "the rotary embedding has four axes; it stays outside"
    if any(input_at(node, 3) is not None for node in turns):
        return "the rotary embedding looks its own positions up; it stays outside"
    cos, sin = (_table_of(body, value) for value in turns[0].inputs[1:3])
    if cos is None or sin is None:
        return "cos and sin are not rows by position; they stay outside"
    if (width_of(cos) or 1) % 8:
        return "angles are no multiple of 8; the rotary embedding stays outside"
    return cos, sin


def _table_of(body: Body, value: ir.Value | None) -> ir.Value | None:
    """The table whose rows by position are ``value``, passed into the body."""
    arguments = body.arguments(value)
    if value is None or not arguments:
        return None
    found = []
    for argument in arguments:
        node = made_by(argument, "Gather")
        if node is None or node.attributes.get_int("axis", 0) != 0 or node.inputs[0] is None:
            return None
        if made_by(node.inputs[1], "Positions", domain=DIALECT) is None:
            return None
        if not node.inputs[0].is_initializer():
            return None
        found.append(node.inputs[0])
    return body.lift(f"{value.name}_table", found)
