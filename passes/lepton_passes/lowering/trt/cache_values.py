"""What attention over a static cache reads, computed once in the main graph for all layers.

From past_lengths (batch,) int32, the tokens that the cache holds of each row, and input_ids:
    cache.write_indices   Cast<INT64>(past_lengths)                     (batch,)
    cache.kv_lengths      past_lengths + sequence                       (batch,) int32
    cache.positions       past_lengths[:, None] + arange(sequence)      (batch, sequence) int64
    cache.seen            key j <= position              (batch, 1, sequence, capacity) bool
    cache.seen.W          the same, and j > position - W
    cache.mask, .W        0 where it is seen, else HIDDEN
    cache.filled          1 where key j < kv_length, else 0         (batch, capacity) int64

The values are found again by their names, so that passes after each other share them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["HIDDEN", "PAST_LENGTHS", "CacheValues"]

PAST_LENGTHS = "past_lengths"
HIDDEN = -30000.0
"""Bias of a key that is not seen: finite in every type, and a row without keys stays a number."""

INT32, INT64 = int(ir.DataType.INT32), int(ir.DataType.INT64)


class CacheValues:
    """Makes each value once for each model.

    Args:
        model: has the inputs ``past_lengths`` and ``input_ids``.
    """

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._inputs = {v.name: v for v in model.graph.inputs}
        self._known = {o.name: o for node in model.graph for o in node.outputs}
        self._last: ir.Node | None = None

    @property
    def past_lengths(self) -> ir.Value:
        """The input."""
        return self._inputs[PAST_LENGTHS]

    def write_indices(self) -> ir.Value:
        """Where the new keys of each row go, (batch,) int64."""
        return self._known.get("cache.write_indices") or self._node(
            "Cast", [self.past_lengths], "cache.write_indices", to=INT64
        )

    def kv_lengths(self) -> ir.Value:
        """Keys of each row, the new ones included, (batch,) int32."""
        if "cache.kv_lengths" not in self._known:
            count = self._node("Cast", [self._sequence()], "cache.sequence_i32", to=INT32)
            self._node("Add", [self.past_lengths, count], "cache.kv_lengths")
        return self._known["cache.kv_lengths"]

    def positions(self) -> ir.Value:
        """Position of each new token in its row, (batch, sequence) int64."""
        if "cache.positions" not in self._known:
            zero, one, axis = (self._constant(v) for v in (0, 1, [0]))
            count = self._node("Squeeze", [self._sequence(), axis], "cache.sequence_scalar")
            steps = self._node("Range", [zero, count, one], "cache.steps")
            first = self._node(
                "Unsqueeze", [self.write_indices(), self._constant([1])], "cache.first"
            )
            made = self._node("Add", [first, steps], "cache.positions")
            made.shape = ir.Shape(["batch", "sequence"])
        return self._known["cache.positions"]

    def seen(self, capacity: int, window: int) -> ir.Value:
        """Which keys each query sees, bool (batch, 1, sequence, capacity)."""
        name = "cache.seen" if window < 0 else f"cache.seen.{window}"
        if name not in self._known:
            query = self._node(
                "Unsqueeze", [self.positions(), self._constant([1, 3])], f"{name}.query"
            )
            keys = self._constant(np.arange(capacity))
            past = name if window < 0 else f"{name}.past"
            seen = self._node("LessOrEqual", [keys, query], past)
            if window >= 0:
                limit = self._node("Sub", [query, self._constant(window)], f"{name}.limit")
                near = self._node("Greater", [keys, limit], f"{name}.near")
                self._node("And", [seen, near], name)
        return self._known[name]

    def mask(self, capacity: int, window: int, dtype: ir.DataType) -> ir.Value:
        """Bias of each key for each query, ``dtype`` (batch, 1, sequence, capacity)."""
        name = "cache.mask" if window < 0 else f"cache.mask.{window}"
        if name in self._known and self._known[name].dtype != dtype:
            name += f".{dtype.name.lower()}"
        if name not in self._known:
            seen = self.seen(capacity, window)
            zero, hidden = (self._constant(dtype.numpy().type(v)) for v in (0.0, HIDDEN))
            self._node("Where", [seen, zero, hidden], name).type = ir.TensorType(dtype)
        return self._known[name]

    def filled(self, capacity: int) -> ir.Value:
        """The attention mask of a row that is packed to the left, int64 (batch, capacity)."""
        if "cache.filled" not in self._known:
            lengths = [self.kv_lengths(), self._constant([1])]
            keys = self._constant(np.arange(capacity, dtype=np.int32))
            held = self._node("Unsqueeze", lengths, "cache.filled.lengths")
            there = self._node("Less", [keys, held], "cache.filled.there")
            made = self._node("Cast", [there], "cache.filled", to=INT64)
            made.type, made.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(["batch", capacity])
        return self._known["cache.filled"]

    def last(self) -> ir.Value:
        """Index of the last new token, (1,) int64."""
        return self._known.get("cache.last") or self._node(
            "Sub", [self._sequence(), self._constant([1])], "cache.last"
        )

    def _sequence(self) -> ir.Value:
        """Number of new tokens, (1,) int64."""
        return self._known.get("cache.sequence") or self._node(
            "Shape", [self._inputs["input_ids"]], "cache.sequence", start=1, end=2
        )

    def _constant(self, value: object) -> ir.Value:
        array = np.asarray(value)
        return self._insert(ir.node("Constant", [], {"value": ir.tensor(array)}))

    def _node(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        made = self._insert(ir.node(op_type, inputs, attributes, name=name))
        made.name = name
        self._known[name] = made
        return made

    def _insert(self, node: ir.Node) -> ir.Value:
        """At the front, in the order in which the values are made."""
        if self._last is None:
            self._last = next((n for n in reversed(self._graph) if _ours(n)), None)
        if self._last is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]


def _ours(node: ir.Node) -> bool:
    return (node.name or "").startswith("cache.")
