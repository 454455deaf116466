"""What attention kernels of onnxruntime read from the mask, computed once for all layers.

From attention_mask (batch, total) BOOL:
    seqlens_k               ReduceSum(mask, axis 1) - 1     (batch,) int32: index of the last token
    total_sequence_length   Shape(mask)[1]                  scalar int32
    key_padding_mask        Cast<INT32>(mask)               (batch, total)
    mask_column             0, or -1e9 where that is 0      (batch, total, heads, 1) fp32
    no_keys                 zeros                           (batch, 0, width)
    window_bias             0 where |i - j| < window, else the least float    (1, 1, total, total)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["MaskValues"]

INT32 = int(ir.DataType.INT32)
# The least number of fp32 would be an infinity in bf16, which rounds it away from zero.
LEAST = np.float32(-3.3e38)
HIDDEN = -1e9
"""Of a score before it is scaled: far below all others, and no infinity once it is."""
LEAST_HALF = np.float16(np.finfo(np.float16).min)


class MaskValues:
    """Makes each value once for each mask. One instance serves one run of a pass."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def seqlens(self, mask: ir.Value) -> ir.Value:
        """Index of the last token of each row, int32 (batch,)."""
        key = ("seqlens", mask)
        if key not in self._made:
            one = self._constant(np.array([1], dtype=np.int64), mask)
            summed = self._node("ReduceSum", [self.padding(mask), one], mask, keepdims=0)
            minus = self._constant(np.array(1, dtype=np.int32), mask)
            self._made[key] = self._node("Sub", [summed, minus], mask)
        return self._made[key]

    def total(self, mask: ir.Value) -> ir.Value:
        """Length of the mask, an int32 scalar."""
        key = ("total", mask)
        if key not in self._made:
            length = self._length(mask)
            self._made[key] = self._node("Cast", [length], mask, to=INT32)
        return self._made[key]

    def padding(self, mask: ir.Value) -> ir.Value:
        """The mask as int32."""
        key = ("padding", mask)
        if key not in self._made:
            seen, maker = mask, mask.producer()
            if maker is not None and maker.op_type == "MarkedMask":  # numbers of pictures, too
                zero = self._constant(np.array(0, dtype=np.int64), mask)
                seen = self._node("Greater", [mask, zero], mask)
            self._made[key] = self._node("Cast", [seen], mask, to=INT32)
        return self._made[key]

    def column(self, padding: ir.Value, heads: int) -> ir.Value:
        """What is added to the scores of keys, of which ``padding`` says which are seen."""
        key = ("column", padding, heads)
        if key not in self._made:
            seen = self._node("Cast", [padding], padding, to=int(ir.DataType.BOOL))
            values = [self._constant(np.array(v, np.float32), padding) for v in (0.0, HIDDEN)]
            added = self._node("Where", [seen, *values], padding)
            axes = self._constant(np.array([2, 3], dtype=np.int64), padding)
            wide = self._node("Unsqueeze", [added, axes], padding)
            shape = self._constant(np.array([1, 1, heads, 1], dtype=np.int64), padding)
            self._made[key] = self._node("Expand", [wide, shape], padding)
        return self._made[key]

    def no_keys(self, mask: ir.Value, width: int, dtype: ir.DataType) -> ir.Value:
        """Keys, or values, of no token."""
        key = ("nothing", mask, width, dtype)
        if key not in self._made:
            batch = self._node("Shape", [mask], mask, start=0, end=1)
            rest = self._constant(np.array([0, width], dtype=np.int64), mask)
            shape = self._node("Concat", [batch, rest], mask, axis=0)
            zero = self._constant(np.zeros(1, dtype.numpy()), mask)
            self._made[key] = self._node("Expand", [zero, shape], mask)
        return self._made[key]

    def window_bias(self, mask: ir.Value, window: int, dtype: ir.DataType) -> ir.Value:
        """Bias that hides keys at a distance of ``window`` and more, (1, 1, total, total)."""
        key = ("window", mask, window, dtype)
        if key not in self._made:
            zero, one = (self._constant(np.array(i, dtype=np.int64), mask) for i in (0, 1))
            places = self._node("Range", [zero, self._length(mask), one], mask)
            shape = self._constant(np.array([-1, 1], dtype=np.int64), mask)
            distance = self._node(
                "Sub", [self._node("Reshape", [places, shape], mask), places], mask
            )
            limit = self._constant(np.array(window, dtype=np.int64), mask)
            near = self._node("Less", [self._node("Abs", [distance], mask), limit], mask)
            least = LEAST_HALF if dtype == ir.DataType.FLOAT16 else LEAST
            seen, hidden = (
                self._constant(np.array(v).astype(dtype.numpy()), mask) for v in (0.0, least)
            )
            bias = self._node("Where", [near, seen, hidden], mask)
            axes = self._constant(np.array([0, 1], dtype=np.int64), mask)
            self._made[key] = self._node("Unsqueeze", [bias, axes], mask)
        return self._made[key]

    def _length(self, mask: ir.Value) -> ir.Value:
        """Length of the mask, an int64 scalar."""
        key = ("length", mask)
        if key not in self._made:
            shape = self._node("Shape", [mask], mask, start=1, end=2)
            axis = self._constant(np.array([0], dtype=np.int64), mask)
            self._made[key] = self._node("Squeeze", [shape, axis], mask)
        return self._made[key]

    def _constant(self, array: np.ndarray, mask: ir.Value) -> ir.Value:
        node = ir.node("Constant", [], {"value": ir.tensor(array)})
        return self._insert(node, mask)

    def _node(
        self, op_type: str, inputs: list[ir.Value], mask: ir.Value, **attributes: int
    ) -> ir.Value:
        return self._insert(ir.node(op_type, inputs, attributes), mask)

    def _insert(self, node: ir.Node, mask: ir.Value) -> ir.Value:
        """Behind what makes the mask and behind what was made before."""
        key = ("last", mask)
        after = self._made[key].producer() if key in self._made else mask.producer()
        if after is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(after, node)
        self._made[key] = node.outputs[0]
        return node.outputs[0]
