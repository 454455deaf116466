"""Merge reshapes that follow each other, and drop those that change nothing.

    Before   Reshape(0,0,4,32) -> Reshape(0,0,128)          on x of three axes
    After    x
    Before   Reshape(0,0,1,64) -> RMSNormalization -> Reshape(0,0,64)
    After    RMSNormalization

A Reshape to as many axes as its input has, of which all but one are copied, changes nothing.
Refuses: shapes that are not constant; a copied axis that the first Reshape infers (-1), or a zero
of it that is a size; a norm of a single head behind a Reshape that does not keep the first two
axes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import NORMS, ints_of, keeps_two, made_by, norm_axis_is_last, rank_of

__all__ = ["MergeReshape"]


class MergeReshape(LeptonPass):
    """Merge and drop reshapes."""

    name = "merge-reshape"
    summary = "Merge chains of Reshape, drop those without effect"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Reshape"):
            if node.attributes.get_int("allowzero", 0) == 0:
                node = self._around_norm(body, node)
                node = self._merged(body, node)
                self._drop(body, node)

    def _merged(self, body: Body, node: ir.Node) -> ir.Node:
        """Read the input of the Reshape in front instead, as often as there is one."""
        first = made_by(node.inputs[0], "Reshape")
        if first is None:
            return node
        shape, before = ints_of(body, node.inputs[1]), ints_of(body, first.inputs[1])
        if shape is None or before is None:
            self.refuse(body, node, "the shape is not constant")
            return node
        if 0 in before and first.attributes.get_int("allowzero", 0) != 0:
            self.refuse(body, node, "a zero of the Reshape in front is a size, not a copied axis")
            return node
        merged = list(shape)
        for axis, size in enumerate(shape):
            if size == 0:
                merged[axis] = before[axis]
        if any(s == 0 and merged[i] == -1 for i, s in enumerate(shape)):
            self.refuse(body, node, "a copied axis is inferred by the Reshape in front")
            return node
        target = body.constant_node(node, np.array(merged, dtype=np.int64))
        new = body.emit(node, "Reshape", [first.inputs[0], target])
        body.replace(node.outputs[0], new.outputs[0])
        body.graph.remove(node, safe=True)
        self.fire(body)
        return self._merged(body, new)

    def _around_norm(self, body: Body, node: ir.Node) -> ir.Node:
        """With a single head, a norm of each head is the norm of the whole."""
        norm = made_by(node.inputs[0], *NORMS)
        first = made_by(norm.inputs[0], "Reshape") if norm is not None else None
        if norm is None or first is None or not norm_axis_is_last(norm):
            return node
        before, after = ints_of(body, first.inputs[1]), ints_of(body, node.inputs[1])
        if before is None or len(before) != 4 or before[2] != 1 or after is None:
            return node
        if after != [0, 0, before[3]] or rank_of(body, first.inputs[0]) != 3:
            return node
        if not keeps_two(body, first):
            self.refuse(body, node, "the Reshape in front does not keep the first two axes")
            return node
        new = body.emit(node, norm.op_type, [first.inputs[0], *norm.inputs[1:]])
        new.attributes.update(norm.attributes)
        again = body.emit(node, "Reshape", [new.outputs[0], node.inputs[1]])
        body.replace(node.outputs[0], again.outputs[0])
        body.graph.remove(node, safe=True)
        self.fire(body)
        return again

    def _drop(self, body: Body, node: ir.Node) -> None:
        shape, x = ints_of(body, node.inputs[1]), node.inputs[0]
        if shape is None or x is None or rank_of(body, x) != len(shape):
            return
        changed = [i for i, s in enumerate(shape) if s != 0 and not _is_size(x, i, s)]
        if len(changed) <= 1 and body.can_replace(node.outputs[0], x):
            body.replace(node.outputs[0], x)
            self.fire(body)


def _is_size(x: ir.Value, axis: int, size: int) -> bool:
    return x.shape is not None and x.shape[axis] == size
