"""Ops of a program that nothing reads but checks: they need no translation.

What the model's code looks at to find out whether its input is sound (``unique_consecutive`` of
BART's end tokens) stays in a program with the assertion that torch makes of it.
"""

from __future__ import annotations

from torch import fx

from lepton_compile.export.program import op_name

from .in_place import writes

__all__ = ["idle"]

_CHECKS = ("aten._assert", "aten.sym_constrain", "_guards", "aten._assert_tensor_metadata")
# What has no other effect than its result: torch's ops, and Python's on sizes.
_PASSIVE = ("aten.", "<built-in function ")


def idle(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that no output depends on; ours stay, for some have a state."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        name = str(node.target)
        if node.op != "call_function" or not name.startswith((*_PASSIVE, *_CHECKS)):
            continue
        if name.startswith(_CHECKS) or (not writes(op_name(node)) and found.issuperset(node.users)):
            found.add(node)
    return found
