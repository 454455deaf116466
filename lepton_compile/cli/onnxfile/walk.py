"""Walk an ONNX model as it runs: through subgraphs, and through the function of each layer.

A layer that is stored once as a function and called 18 times counts 18 times. Functions of other
domains are ops with a body for reference and are not entered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LAYERS", "attributes", "nodes"]

LAYERS = "ai.lepton.layer"


def nodes(model: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Every node (NodeProto) with the initializers it can see, by the names it uses."""
    functions = {(f.domain, f.name): f for f in model.functions if f.domain == LAYERS}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    yield from _walk(model.graph.node, weights, functions)


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node as Python values; subgraphs left out."""
    from onnx import AttributeProto, helper

    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type not in graphs}


def _walk(
    body: Any, weights: Mapping[str, Any], functions: Mapping[tuple[str, str], Any]
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    for node in body:
        function = functions.get((node.domain, node.op_type))
        if function is not None:
            pairs = zip(function.input, node.input, strict=False)
            inside = {name: weights[given] for name, given in pairs if given in weights}
            yield from _walk(function.node, inside, functions)
            continue
        yield node, weights
        for attribute in node.attribute:
            for graph in [*([attribute.g] if attribute.g.node else []), *attribute.graphs]:
                local = {tensor.name: tensor for tensor in graph.initializer}
                yield from _walk(graph.node, {**weights, **local}, functions)
