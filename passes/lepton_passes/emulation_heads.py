"""Norms of heads that onnxruntime's attention does on a GPU alone, as nodes in front of it.

Before   GroupQueryAttention(qkv, , , .., q_norm_weight, k_norm_weight)
After    q, k, v = Split(Reshape(qkv))
         GroupQueryAttention(Reshape(RMSNormalization(q)), .. k .., Reshape(v), ..)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

__all__ = ["norms_outside"]

_QUERY_NORM, _KEY_NORM = 14, 15


def norms_outside(graph: ir.Graph) -> None:
    """Rewrite each GroupQueryAttention of ``graph`` that norms heads."""
    for node in list(graph):
        given = [*node.inputs, *[None] * 16]
        if node.op_type == "GroupQueryAttention" and given[_QUERY_NORM] is not None:
            _outside(graph, node)


def _outside(graph: ir.Graph, node: ir.Node) -> None:
    heads, others = (node.attributes.get_int(f"{of}num_heads") for of in ("", "kv_"))
    epsilon = node.attributes.get_float("qk_norm_epsilon")
    added: list[ir.Node] = []

    def emit(
        op: str, inputs: Sequence[ir.Value | None], outputs: int = 1, **attributes: float
    ) -> Sequence[ir.Value]:
        added.append(ir.node(op, inputs, attributes, num_outputs=outputs))
        return added[-1].outputs

    def ints(*numbers: int) -> ir.Value:
        tensor = ir.tensor(np.array(numbers, np.int64))
        added.append(ir.node("Constant", [], {"value": tensor}))
        return added[-1].outputs[0]

    def by_head(value: ir.Value | None, count: int) -> ir.Value:
        return emit("Reshape", [value, ints(0, 0, count, -1)])[0]

    query, key, value = node.inputs[:3]
    if key is None:
        whole = by_head(query, heads + 2 * others)
        query, key, value = emit("Split", [whole, ints(heads, others, others)], 3, axis=2)
    else:
        query, key = by_head(query, heads), by_head(key, others)
    normed = [
        emit("RMSNormalization", [x, node.inputs[at]], epsilon=epsilon)[0]
        for x, at in ((query, _QUERY_NORM), (key, _KEY_NORM))
    ]
    joined = [emit("Reshape", [x, ints(0, 0, -1)])[0] for x in (*normed, value)]
    graph.insert_before(node, added)
    for index, made in enumerate(joined):
        node.replace_input_with(index, made)
    node.resize_inputs(_QUERY_NORM)
    node.attributes.pop("qk_norm_epsilon")
