"""Lower attention with a bias of scores to our own CPU kernel.

    Before   q, k, v = Transpose(Reshape(..)), each;  Reshape(Transpose(Attention(q, k, v, bias)))
    After    ai.lepton.cpu::MultiHeadAttention(q, k, v, , bias)

T5, Swin and BEiT add a bias of relative positions, in which masks are folded. Three pieces of one
Split go in as one; keys and values that come in heads, as those of a cache, stay so.
A query that sees no key gets zeros, where ONNX takes the mean of all.

Refuses: a mask of truth values; heads that are grouped, no multiple of 8, or not put side by side;
a bias that is not (batch, heads, queries, keys) or 1 of them; a causal order, a softcap or a cache
beside it; sizes that are not known.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort._biased import Biased, attends, biased, flat, thirds
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerBiasedAttention"]


class LowerBiasedAttention(LeptonPass):
    """Lower attention with a bias to a kernel of our own."""

    name = "lower-biased-attention"
    summary = "Attention with a bias to a kernel of our own"
    changes_numbers = True
    counts_as = "attention"

    def rewrite(self, body: Body) -> None:
        for node in filter(attends, body.nodes("Attention")):
            found = biased(body, node)
            if isinstance(found, str):
                self.refuse(body, node, found)
            else:
                self._lower(body, node, found)

    def _lower(self, body: Body, node: ir.Node, found: Biased) -> None:
        given = _given(body, node, found.query)
        attributes = {"num_heads": found.heads, "unidirectional": 0, "scale": found.scale}
        new = body.emit(
            node,
            "MultiHeadAttention",
            [*given, None, found.bias],
            attributes,
            domain=CPU_DOMAIN,
        )
        body.replace(found.result.outputs[0], new.outputs[0])
        self.fire(body)


def _given(body: Body, node: ir.Node, query: ir.Value) -> tuple[ir.Value | None, ...]:
    """Query, key and value. Those of another text are read anew for each token that is written: in
    heads they lie one behind the other."""
    key, value = (flat(body, each) for each in node.inputs[1:3])
    if key is None or value is None or _of_another(node):
        return (query, *node.inputs[1:3])
    return thirds(body, query, key, value)


def _of_another(node: ir.Node) -> bool:
    query, key = (value.shape if value is not None else None for value in node.inputs[:2])
    return query is not None and key is not None and query[2] != key[2]
