"""Nodes of the op, read from a graph before TensorRT's parser drops what it does not know."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from onnx import TensorProto

from lepton_plugins.attention.nodes import variant_of_node, variants_in
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError
from tests.plugins.attention.trt_graphs import graph


def model(**changes: Any) -> ir.Model:
    return ir.from_proto(graph(**changes))


def test_a_variant_for_all_nodes_that_are_alike() -> None:
    found = model(dtype=TensorProto.BFLOAT16, window=512)
    (node,) = found.graph
    for window in (512, -1):
        attributes = {n: a.value for n, a in node.attributes.items()} | {"window": window}
        copy = ir.node(node.op_type, node.inputs, attributes, domain="lepton", num_outputs=3)
        found.graph.append(copy)
    assert [variant.window for variant in variants_in(found)] == [512, -1]


def test_floats_are_those_that_a_file_holds() -> None:
    """Or the kernels compiled for the graph are not those that the plan asks for."""
    found = model(scale=0.1, softcap=30.1)
    (node,) = found.graph
    node.attributes["scale"] = ir.AttrFloat32("scale", 0.1)  # not rounded while it is in memory
    again = ir.from_proto(ir.to_proto(found))
    assert variant_of_node(node) == variant_of_node(next(iter(again.graph)))
    assert variant_of_node(node).scale != 0.1


def test_the_default_scale_is_that_of_the_head() -> None:
    (variant,) = variants_in(model())
    assert variant == Variant("float16", 4, 1, 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dropout": 0.5}, "has no such attribute"),
        ({"window": 8.0}, "the attribute window is not of type int"),
        ({"head_dim": 24}, "no kernels for this head_dim"),
        ({"sizes": {}, "sinks": True, "inputs": [*"abcdefg"]}, "type of query is not known"),
    ],
)
def test_what_the_parser_would_drop_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words) as caught:
        variants_in(model(**changes))
    assert caught.value.where == "layers.0.attention"


def test_an_input_left_empty_is_refused() -> None:
    names = ["query", "key", "value", "past_lengths", "key_cache", "value_cache", ""]
    with pytest.raises(PluginError, match="sinks is left empty") as caught:
        variants_in(model(inputs=names))
    assert "left out" in str(caught.value)
