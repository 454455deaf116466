"""Which boolean values of a graph say what a query may see: settled by computing them.

Models that write attention out make their own mask, of a mask of padding and of two counts of
positions, in many nodes and in a different way each. What such a value means is found out by
running the few nodes that it is made of on small masks, and comparing.
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
    of the ids, the mask of padding and constants."""
    found: set[ir.Node] = set()
    pending = [value]
    while pending:
        each = pending.pop()
        node = each.producer()
        if node is None:
            if each.name not in (IDS, PADDING) or not each.is_graph_input():
                return None
        elif node not in found:
            if node.domain:
                return None
            found.add(node)
            pending += [v for v in node.inputs if v is not None]
    return [node for node in graph if node in found]


def window_of(graph: ir.Graph, value: ir.Value, capacity: int) -> int | None:
    """The window of a causal mask of shape (batch or 1, 1, new, all), -1 where it has none; None
    for a value that is something else."""
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
        if found is None or not np.array_equal(found, _causal(padding, new, window)):
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

    function = onnx.helper.make_function(
        "",
        "f",
        [IDS, PADDING],
        [value.name or ""],
        [ir.to_proto(node) for node in nodes],
        [onnx.helper.make_opsetid("", 24)],
    )
    feeds = {IDS: np.zeros((len(padding), new), np.int64), PADDING: padding}
    try:
        (found,) = ReferenceEvaluator(function).run(None, feeds, {})
    except Exception:  # an op that the evaluator lacks, or shapes that do not fit: no mask of ours
        return None
    return np.asarray(found)
