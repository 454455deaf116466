"""Which keys a query sees where the tokens of a picture see each other, as numbers added to scores.

From marks (batch, total) INT64 = MarkedMask(attention_mask, input_ids, token):
    bias    0 where a key is seen, else the least float      (batch, 1, sequence, total)

A key is seen that is no padding, no window or more before the query, and at or before it or of the
same picture. Rows are packed to the left, as they lie in a shared cache: the new tokens of a row
are its last ones, or where there are fewer than queries, its first ones, and padding behind.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.lowering.ort.sequence_lengths import LEAST

__all__ = ["MarkedBias"]

INT64 = int(ir.DataType.INT64)


class MarkedBias:
    """Makes each bias once for each mask and window. One instance serves one run of a pass."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        self._last: ir.Node | None = None

    def of(self, marks: ir.Value, window: int) -> ir.Value:
        """The bias of a ``window`` of keys, the query's own included; -1: there is none."""
        key = marks, window
        if key not in self._made:
            self._last = marks.producer()
            made = self._made[key] = self._bias(marks, window)
            made.dtype = ir.DataType.FLOAT
            made.shape = ir.Shape(["batch", 1, "sequence", "total_sequence"])
        return self._made[key]

    def _bias(self, marks: ir.Value, window: int) -> ir.Value:
        maker = marks.producer()
        assert maker is not None
        zero, one = self._number(0), self._number(1)
        seen = self._node("Greater", marks, zero)
        places = self._places(seen, maker.inputs[1])
        distance = self._node("Sub", self._wide(places, 2), self._range(marks, 1))
        in_order = self._node("GreaterOrEqual", distance, zero)
        own = self._wide(self._node("GatherElements", marks, places, axis=1), 2)
        alike = self._node("Equal", own, self._wide(marks, 1))
        together = self._node("And", alike, self._node("Greater", own, one))
        visible = self._node("Or", in_order, together)
        if window >= 0:
            near = self._node("Less", distance, self._number(window))
            visible = self._node("And", visible, near)
        visible = self._node("And", visible, self._wide(seen, 1))
        values = (self._constant(np.array(v, np.float32)) for v in (0.0, LEAST))
        return self._wide(self._node("Where", visible, *values), 1)

    def _places(self, seen: ir.Value, ids: ir.Value | None) -> ir.Value:
        """Where each new token stands in its row, (batch, sequence)."""
        assert ids is not None
        ones, axis = self._node("Cast", seen, to=INT64), self._constant(np.array([1]))
        count = self._node("ReduceSum", ones, axis, keepdims=1)
        new = self._node("Shape", ids, start=1, end=2)
        before = self._node("Max", self._node("Sub", count, new), self._number(0))
        return self._node("Add", before, self._range(ids, 1))

    def _range(self, value: ir.Value, axis: int) -> ir.Value:
        """0, 1, .. along an axis."""
        size = self._node("Shape", value, start=axis, end=axis + 1)
        end = self._node("Squeeze", size, self._constant(np.array([0])))
        return self._node("Range", self._number(0), end, self._number(1))

    def _wide(self, value: ir.Value, axis: int) -> ir.Value:
        return self._node("Unsqueeze", value, self._constant(np.array([axis])))

    def _number(self, value: int) -> ir.Value:
        return self._constant(np.array(value, np.int64))

    def _constant(self, array: np.ndarray) -> ir.Value:
        return self._insert(ir.node("Constant", [], {"value": ir.tensor(array)}))

    def _node(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return self._insert(ir.node(op_type, list(inputs), attributes))

    def _insert(self, node: ir.Node) -> ir.Value:
        """Behind what makes the marks and what was made before."""
        assert self._last is not None
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]
