"""Attention that is the model's own code, over a static cache: ALiBi, GPT-J's rotary embedding.

    Before   present = Concat(past, new);  seen = And(keys <= queries, padding)
             other values of the mask of padding: positions of ALiBi, shapes
    After    present = TensorScatter(past, new, write_indices);  seen = cache.seen
             the same of cache.filled

What is computed with keys stays as the model wrote it: products, Softmax, or the standard
attention with a mask. Keys that are not there are hidden by ``seen``, as padding is by the model.

Which value is ``seen`` is settled by computing it (``_causal.py``). What else counts queries from
the end of the mask is refused: behind a static cache the mask ends at the capacity.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from lepton_passes.lowering.trt._causal import IDS, PADDING, makers_of, window_of
from lepton_passes.lowering.trt.cache_values import CacheValues
from lepton_passes.lowering.trt.forms import FORM
from lepton_passes.match import KEYS_AND_VALUES

__all__ = ["OwnAttention"]

_LOGIC = frozenset({"And", "Cast", "Expand", "Identity", "Not", "Or", "Reshape", "Unsqueeze"})
_COUNTS = frozenset({"Add", "Cast", "Gather", "Identity", "Mul", "Neg", "Squeeze", "Sub"})
_COUNTS |= {"Unsqueeze"}


class OwnAttention:
    """The caches that a model extends by itself, and the masks it made for them.

    Args:
        capacity: tokens that a row of the cache has room for.
    """

    def __init__(self, model: ir.Model, capacity: int) -> None:
        self._graph, self._capacity = model.graph, capacity
        self.caches = [node for node in model.graph if _extends(node)]
        self._seen: dict[ir.Value, int] = {}
        if self.caches:
            candidates = [v for node in model.graph for v in node.outputs if self._decides(v)]
            windows = {v: window_of(model.graph, v, capacity) for v in candidates}
            self._seen = {v: w for v, w in windows.items() if w is not None}

    def refusals(self) -> Iterator[tuple[ir.Node, str]]:
        """Nodes that cannot be kept behind a static cache, each with the reason."""
        for node in self.caches:
            past = node.inputs[0]
            if past is None or past.shape is None or len(past.shape) != 4:
                yield node, "its cache is not (batch, heads, tokens, width)"
        if self.caches and not self._seen:
            yield self.caches[0], "the mask of its own attention is not a causal one"
        for node in self._mixed():
            yield node, "it counts queries from the end of the attention mask"

    def rewrite(self, values: CacheValues) -> None:
        """Write into static caches, with the masks of those."""
        for value, window in self._seen.items():
            _redirect(value, values.seen(self._capacity, window))
        padding = next((v for v in self._graph.inputs if v.name == PADDING), None)
        if padding is not None and padding.uses():
            _redirect(padding, values.filled(self._capacity))
        for node in self.caches:
            self._scatter(node, values)

    def _scatter(self, node: ir.Node, values: CacheValues) -> None:
        past, old = node.inputs[0], node.outputs[0]
        inputs = [past, node.inputs[1], values.write_indices()]
        made = ir.node("TensorScatter", inputs, {"axis": -2, "mode": "linear"})
        self._graph.insert_before(node, made)
        written = made.outputs[0]
        if ".key" in (old.name or ""):
            made.metadata_props[FORM] = "own"
        written.type = old.type
        sizes = list(old.shape or ())
        written.shape = ir.Shape([*sizes[:2], self._capacity, *sizes[3:]])
        written.name, old.name = old.name, None
        for reader in [use.node for use in old.uses()]:
            if reader.op_type == "Attention" and not reader.domain:
                reader.attributes.add(ir.AttrInt64("TRT_decomposable", 1))
        ir.convenience.replace_all_uses_with(old, written, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def _decides(self, value: ir.Value) -> bool:
        """Whether a truth of four axes is read by something that is no logic any more."""
        if value.dtype != ir.DataType.BOOL or not value.uses():
            return False
        if all(use.node.op_type in _LOGIC for use in value.uses()):
            return False
        return makers_of(self._graph, value) is not None

    def _mixed(self) -> Iterator[ir.Node]:
        """Arithmetic on both the number of new tokens and that of all, where it is still needed."""
        counts: dict[ir.Value, frozenset[str]] = {}
        needed = self._needed()
        for node in self._graph:
            if node.op_type == "Shape" and not node.domain:
                kinds = _counted(node)
            elif node.op_type in (*_COUNTS, "Range", "Slice") and not node.domain:
                inputs = (counts.get(v, frozenset()) for v in node.inputs if v is not None)
                kinds = frozenset[str]().union(*inputs)
            else:
                continue
            if len(kinds) > 1 and node in needed:
                yield node
                return
            counts |= dict.fromkeys(node.outputs, kinds)

    def _needed(self) -> set[ir.Node]:
        """What the outputs are made of once the masks are those of the static cache."""
        found: set[ir.Node] = set()
        pending = [v for v in self._graph.outputs if v not in self._seen]
        while pending:
            node = pending.pop().producer()
            if node is not None and node not in found:
                found.add(node)
                pending += [v for v in node.inputs if v is not None and v not in self._seen]
        return found


def _counted(node: ir.Node) -> frozenset[str]:
    """Which of the two lengths a Shape may hold."""
    source, start = node.inputs[0], node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", 2)
    name = (source.name or "") if source is not None and source.is_graph_input() else ""
    return frozenset({name} & {IDS, PADDING}) if start % 2 <= 1 <= (end - 1) % 2 else frozenset()


def _extends(node: ir.Node) -> bool:
    """Whether a node puts new keys or values behind those of the cache, and hands both out."""
    past = node.inputs[0] if node.inputs else None
    return (
        node.op_type == "Concat"
        and not node.domain
        and len(node.inputs) == 2
        and past is not None
        and past.is_graph_input()
        and (past.name or "").startswith(KEYS_AND_VALUES)
        and node.attributes.get_int("axis", 0) in (2, -2)
        and node.outputs[0].is_graph_output()
    )


def _redirect(old: ir.Value, new: ir.Value) -> None:
    for use in tuple(old.uses()):
        use.node.replace_input_with(use.idx, new)
