"""Compute query, key and value with one linear layer.

    Before   q = x Wq;  k = x Wk;  v = x Wv        found from the inputs of an attention op
    After    q, k, v = Split(x [Wq; Wk; Wv])

The rows are stacked, so the numbers do not change. Between a projection and the attention may stand
norms, rotary embeddings and reshapes, and a past that keys and values are appended to.
Refuses: inputs, formats or biases that differ; a weight used twice.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.fusion._stack import Projection, projection, refuses, stack
from lepton_passes.linear import Linear, linears
from lepton_passes.match import NORMS, PAST, is_op

__all__ = ["PackedQkv"]

_BETWEEN = ("Reshape", "Transpose", "RotaryEmbedding", "Cast", *NORMS)


class PackedQkv(LeptonPass):
    """Compute query, key and value with one linear layer."""

    name = "packed-qkv"
    summary = "One linear layer for query, key and value"
    changes_numbers = True
    counts_as = "qkv"

    def rewrite(self, body: Body) -> None:
        own = body.nodes("Attention", "CachedAttention", "MarkedAttention", domain=DIALECT)
        for node in [*body.nodes("Attention"), *own]:
            found = {linear.y: linear for linear in linears(body)}
            parts = [_source(body, value, found) for value in node.inputs[:3]]
            known = [part for part in parts if part is not None]
            if len(known) < 3:
                continue
            reason = refuses(known)
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            name = known[0].linear.weight.name.removesuffix(".weight")
            stack(body, known, f"{name}.qkv")
            self.fire(body)


def _source(body: Body, value: ir.Value | None, found: dict[ir.Value, Linear]) -> Projection | None:
    """The projection that ``value`` comes from."""
    while value is not None:
        if value in found:
            return projection(body, found[value])
        node = value.producer()
        if node is None:
            return None
        if is_op(node, "Add") and (product := _biased(node, found)) is not None:
            part = projection(body, product)
            return part if part.y is value else None
        if not is_op(node, *_BETWEEN) and not _appends(node):
            return None
        value = node.inputs[1 if node.op_type == "Concat" else 0]
    return None


def _appends(node: ir.Node) -> bool:
    """Whether it puts new keys or values behind those of a cache."""
    past = node.inputs[0] if is_op(node, "Concat") and len(node.inputs) == 2 else None
    return past is not None and past.is_graph_input() and (past.name or "").startswith(PAST)


def _biased(node: ir.Node, found: dict[ir.Value, Linear]) -> Linear | None:
    return next((found[v] for v in node.inputs if v in found), None)
