"""Where the angles of a rotary embedding come from, for kernels that look them up themselves."""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.match import made_by

__all__ = ["table_of"]


def table_of(body: Body, value: ir.Value | None) -> ir.Value | None:
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
