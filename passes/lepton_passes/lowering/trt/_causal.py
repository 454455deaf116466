"""Which boolean values of a graph say what a query may see: settled by computing them.

Models that write attention out make their own mask, of a mask of padding and of two counts of
positions, in many nodes and in a different way each; or they cut it from a table. What such a value
means is found out by running the few nodes that it is made of on small masks, and comparing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["IDS", "PADDING", "makers_of", "window_of"]

IDS, PADDING = "input_ids", "attention_mask"
# Tokens: (new, all). A window is looked for behind the last of all keys.
_SHAPES = ((1, 1), (1, 6), (4, 4), (3, 7))


def makers_of(graph: ir.Graph, value: ir.Value) -> list[ir.Node] | None:
    """The nodes that ``value`` is made of, in order; None where it depends on more than the shapes
    of the ids, the mask of padding, constants and tables of truths."""
    found: set[ir.Node] = set()
    pending = [value]
    while pending:
        each = pending.pop()
        node = each.producer()
        if node is None:
            given = each.name in (IDS, PADDING) and each.is_graph_input()
            if not given and not _is_table(each):
                return None
        elif node not in found:
            if node.domain:
                return None
            found.add(node)
            pending += [v for v in node.inputs if v is not None]
    return [node for node in graph if node in found]


def window_of(graph: ir.Graph, value: ir.Value, capacity: int) -> int | None:
    """The window of a causal mask of shape (batch or 1, 1, new, all), -1 where it has none; None
    for a value that is something else. One that lets padding be seen is hidden by another."""
    nodes = makers_of(graph, value)
    if nodes is None:
        return None
    wide = _computed(nodes, value, np.ones((1, capacity), np.int64), 1)
    if wide is None or wide.shape != (1, 1, 1, capacity) or not wide[..., -1].all():
        return None
    reach = int(wide.sum())
    window = -1 if reach == capacity else reach
    draw = np.random.default_rng(0)
    for new, total in (*_SHAPES, (2, capacity)):
        padding = draw.integers(0, 2, (2, total))
        found = _computed(nodes, value, padding, new)
        every = np.ones((1, total), np.int64)
        alike = (_causal(each, new, window) for each in (padding, every))
        if found is None or not any(np.array_equal(found, each) for each in alike):
            return None
    return window


def _causal(padding: np.ndarray, new: int, window: int) -> np.ndarray:
    total = padding.shape[1]
    distance = np.arange(total - new, total)[:, None] - np.arange(total)
    seen = (distance >= 0) & ((distance < window) | (window < 0))
    return np.asarray(seen & padding.astype(bool)[:, None, None, :])


def _computed(
    nodes: Sequence[ir.Node], value: ir.Value, padding: np.ndarray, new: int
) -> np.ndarray | None:
    """The value for this mask of padding; None where the nodes do not run."""
    from onnx.reference import ReferenceEvaluator

    read = (v for node in nodes for v in node.inputs if v is not None)
    tables = {v.name or "": v.const_value for v in read if _is_table(v)}
    function = onnx.helper.make_function(
        "",
        "f",
        [IDS, PADDING, *tables],
        [value.name or ""],
        [ir.to_proto(node) for node in nodes],
        [onnx.helper.make_opsetid("", 24)],
    )
    feeds = {IDS: np.zeros((len(padding), new), np.int64), PADDING: padding}
    feeds |= {name: each.numpy() for name, each in tables.items() if each is not None}
    try:
        (found,) = ReferenceEvaluator(function).run(None, feeds, {})
    except Exception:  # an op that the evaluator lacks, or shapes that do not fit: no mask of ours
        return None
    return np.asarray(found)


def _is_table(value: ir.Value) -> bool:
    """Whether a constant of the graph holds truths."""
    return value.is_initializer() and not value.is_graph_input() and value.dtype == ir.DataType.BOOL
