"""Cancel the transposes around attention.

Models turn heads in front of the sequence; the attention ops take the sequence first. Between the
two transposes stand ops of the last axis, so that the first can be moved past them until they meet.

    Before   Transpose(0,2,1,3) -> RMSNormalization -> RotaryEmbedding -> Transpose(0,2,1,3)
    After    RMSNormalization -> Reshape -> RotaryEmbedding(num_heads) -> Reshape

Moved past: norms and Split of the last axis, RotaryEmbedding of four axes (which becomes the form
with three). Two transposes in a row become one, or none.
Refuses: a norm with another axis or a weight of more than one axis; a RotaryEmbedding whose number
of heads is unknown.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import (
    NORMS,
    SEQUENCE_MAJOR,
    heads_of,
    norm_axis_is_last,
    perm_of,
    rank_of,
    readers,
)

__all__ = ["SinkTranspose"]


class SinkTranspose(LeptonPass):
    """Move transposes past ops of the last axis until they cancel."""

    name = "sink-transpose"
    summary = "Cancel the transposes around attention"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        pending = body.nodes("Transpose")
        while pending:
            node = pending.pop()
            perm = perm_of(node)
            if perm is None or perm[-1] != len(perm) - 1 or len(perm) != 4:
                continue
            for user in readers(node.outputs[0]):
                pending += self._move(body, node, perm, user)

    def _move(
        self, body: Body, node: ir.Node, perm: tuple[int, ...], user: ir.Node
    ) -> list[ir.Node]:
        """Move past one reader; returns the transposes made on the way."""
        if user.domain:
            return []
        if user.op_type == "Transpose":
            return self._merge(body, node, perm, user)
        if user.inputs[0] is not node.outputs[0]:
            return []
        if user.op_type in NORMS:
            return self._past_norm(body, node, user)
        if user.op_type == "Split" and user.attributes.get_int("axis", 0) in (-1, 3):
            return self._past(body, node, user, list(user.inputs))
        if user.op_type == "RotaryEmbedding" and perm == SEQUENCE_MAJOR:
            return self._past_rotary(body, node, user)
        return []

    def _merge(
        self, body: Body, node: ir.Node, perm: tuple[int, ...], user: ir.Node
    ) -> list[ir.Node]:
        second = perm_of(user)
        if second is None:
            return []
        x = node.inputs[0]
        assert x is not None
        both = tuple(perm[i] for i in second)
        if both == tuple(range(len(both))):
            if body.can_replace(user.outputs[0], x):
                body.replace(user.outputs[0], x)
                self.fire(body)
            return []
        merged = body.emit(user, "Transpose", [x], {"perm": both})
        body.replace(user.outputs[0], merged.outputs[0])
        self.fire(body)
        return [merged]

    def _past_norm(self, body: Body, node: ir.Node, user: ir.Node) -> list[ir.Node]:
        if not norm_axis_is_last(user):
            self.refuse(body, user, "the norm does not run over the last axis alone")
            return []
        for weight in user.inputs[1:]:
            tensors = body.weights(weight)
            rank = len(tensors[0].shape) if tensors else rank_of(body, weight)
            if weight is not None and rank != 1:
                self.refuse(body, user, "the weight of the norm has more than one axis")
                return []
        return self._past(body, node, user, list(user.inputs))

    def _past(
        self, body: Body, node: ir.Node, user: ir.Node, inputs: list[ir.Value | None]
    ) -> list[ir.Node]:
        """The same op on the other side of the transpose."""
        x, made = node.inputs[0], []
        inputs[0] = x
        moved = body.emit(user, user.op_type, inputs, outputs=len(user.outputs))
        moved.attributes.update(user.attributes)
        for old, new in zip(list(user.outputs), moved.outputs, strict=True):
            if x is not None and user.op_type in NORMS:
                new.type, new.shape = x.type, x.shape
            turned = body.emit(user, "Transpose", [new])
            turned.attributes.update(node.attributes)
            body.replace(old, turned.outputs[0])
            made.append(turned)
        body.graph.remove(user, safe=True)
        return made

    def _past_rotary(self, body: Body, node: ir.Node, user: ir.Node) -> list[ir.Node]:
        heads = heads_of(body, node.inputs[0])
        if heads is None:
            self.refuse(body, user, "the number of heads is unknown")
            return []
        count, width = heads
        flat_shape = body.constant_node(user, np.array([0, 0, count * width], dtype=np.int64))
        flat = body.emit(user, "Reshape", [node.inputs[0], flat_shape]).outputs[0]
        turned = body.emit(user, "RotaryEmbedding", [flat, *user.inputs[1:]])
        turned.attributes.update(user.attributes)
        turned.attributes["num_heads"] = ir.AttrInt64("num_heads", count)
        full_shape = body.constant_node(user, np.array([0, 0, count, width], dtype=np.int64))
        full = body.emit(user, "Reshape", [turned.outputs[0], full_shape]).outputs[0]
        after = body.emit(user, "Transpose", [full], {"perm": SEQUENCE_MAJOR})
        body.replace(user.outputs[0], after.outputs[0])
        body.graph.remove(user, safe=True)
        return [after]
