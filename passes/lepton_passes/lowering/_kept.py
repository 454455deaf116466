"""Which nodes of a body compute for kept positions alone, if what they make is wanted for those.

Those that nothing reads but each other and the end, and that keep positions apart
(``_positions.py``). Our attention is the last of them, as it looks at all keys: of its queries it
computes the last ones (``chooses``), or is given those alone where the keys are those of another
layer (``follows``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body
from lepton_passes.lowering._positions import Form, positions
from lepton_passes.match import reads_another_cache
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["Moved", "chooses", "follows", "moved_behind"]

ATTENTION = "GroupQueryAttention"
# Where a layer has come to all positions: states, and heads.
_ENDS = frozenset({"CausalConvWithState", "Transpose"})
_HEADS = 4  # axes of what is laid out in heads
_LINEAR = ("Experts", "MatMul")


@dataclass
class Moved:
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
        read = {value for node in self.nodes for value in node.inputs if not chooses(node)}
        read -= {None, *made}
        return [value for value in self.forms if value is not None and value in read]

    @property
    def arguments(self) -> list[ir.Value]:
        """Those that the body is given, and of which it reads kept positions alone."""
        some = {node for node in self.nodes if not chooses(node)}
        return [
            value
            for value in self.outside
            if value.is_graph_input()
            and not value.is_graph_output()
            and {use.node for use in value.uses()} <= some
        ]

    @property
    def saves(self) -> bool:
        """Whether it is more than norms and sums."""
        return any(node.op_type in _LINEAR for node in self.nodes)


def chooses(node: ir.Node) -> bool:
    """Whether it is our attention over keys of its own, which computes some of its queries when
    asked."""
    return _is_ours(node) and not reads_another_cache(node)


def follows(node: ir.Node) -> bool:
    """Whether it is our attention over the keys of another layer, which takes some of the queries
    when told of how many."""
    return _is_ours(node) and reads_another_cache(node)


def moved_behind(body: Body, end: ir.Value, reader: ir.Node | None) -> Moved:
    """What ``end``, which ``reader`` alone reads, is computed by that no position but its own goes
    into. Without a reader ``end`` is what the body gives."""
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


def _walked(body: Body, end: ir.Value, reader: ir.Node | None, barred: set[ir.Node]) -> Moved:
    moved, inside = Moved(forms={end: Form.SEQUENCE}), {reader}
    for node in reversed(body.nodes()):
        out = next((value for value in node.outputs if value in moved.forms), None)
        if out is None or node in barred or not _only_for(node, end, inside):
            continue
        form = moved.forms[out]
        found = _reads(body, node, out, form)
        read = {} if isinstance(found, str) else {node.inputs[i]: each for i, each in found.items()}
        if any(moved.forms.get(value, each) is not each for value, each in read.items()):
            found = "it reads rows as a sequence"
        if isinstance(found, str):
            if not _is_end(body, node):
                moved.stops.append((node, found))
            continue
        moved.nodes.append(node)
        moved.forms.update(dict.fromkeys(node.outputs[: 1 if chooses(node) else None], form))
        if not chooses(node):  # it reads all positions of what it is made from
            inside.add(node)
        moved.forms.update(read)
    return moved


def _reads(body: Body, node: ir.Node, out: ir.Value, form: Form) -> Mapping[int, Form] | str:
    """As ``positions``, of our attention, too."""
    if _is_ours(node):
        return {0: form} if follows(node) else {}
    return positions(body, node, out, form)


def _into_sequence(moved: Moved, rows: list[ir.Value]) -> set[ir.Node]:
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
    made = node.outputs[:1] if chooses(node) else node.outputs
    for value in made:
        if value.is_graph_output() and value is not end:
            return False
        if any(use.node not in inside for use in value.uses()):
            return False
    return any(value is end or value.uses() for value in made)


def _is_end(body: Body, node: ir.Node) -> bool:
    """Whether it is where a layer looks at other positions, or begins: nothing is lost there."""
    if node.domain == LAYER_DOMAIN or "Attention" in node.op_type or node.op_type in _ENDS:
        return True
    if node.op_type == "Gather":
        return body.weights(node.inputs[0]) is not None  # by token, or by position
    source = node.inputs[0] if node.op_type == "Reshape" else None
    return source is not None and source.shape is not None and len(source.shape) == _HEADS


def _is_ours(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == (CPU_DOMAIN, ATTENTION)
