"""Nodes that keep the types they came with: what computes inside of them is rewritten by no pass.

    If, Loop, Scan       branches, with weights of their own
    my.domain.Function   a function of the model that is no layer
    my.domain.Op         whatever it takes

What a branch takes from outside is no input of its node, and goes into it all the same.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import DIALECT, LAYER_DOMAIN, MICROSOFT, bodies, branches
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["inside", "own_types", "places"]

_KNOWN = ("", MICROSOFT, CPU_DOMAIN)


def own_types(model: ir.Model, node: ir.Node) -> bool:
    """Whether a node keeps its types."""
    if node.domain in (LAYER_DOMAIN, DIALECT):
        return False
    own = node.domain not in _KNOWN or node.op_identifier() in model.functions
    return own or next(branches(node), None) is not None


def inside(model: ir.Model) -> set[ir.Node]:
    """All nodes in branches, however deep."""
    return {n for body in bodies(model) for n in body.graph.all_nodes() if n.graph != body.graph}


def places(node: ir.Node) -> list[tuple[ir.Node, int]]:
    """Where a node reads: its inputs, and those of nodes in its branches that are from outside."""
    found = [(node, index) for index in range(len(node.inputs))]
    for graph in branches(node):
        nodes = list(graph.all_nodes())
        graphs = [graph, *(each for n in nodes for each in branches(n))]
        own = {value for n in nodes for value in n.outputs}
        own |= {v for each in graphs for v in (*each.inputs, *each.initializers.values())}
        found += [(n, i) for n in nodes for i, v in enumerate(n.inputs) if v not in own]
    return found
