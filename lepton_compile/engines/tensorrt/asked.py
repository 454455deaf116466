"""What the lowered graph asked for, compared with what the parser made of it.

The parser passes over inputs that it does not know and drops what it considers unused, without a
word. Attention and cache layers are therefore counted, node by node and input by input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from lepton_compile.engines.tensorrt.flavour import Flavour
from lepton_compile.errors import EngineError

__all__ = ["Asked", "asked_of", "compare"]

# ONNX op -> layer type.
LAYERS = {
    "Attention": "ATTENTION_INPUT",
    "TRT_Attention": "ATTENTION_INPUT",
    "TensorScatter": "KV_CACHE_UPDATE",
    "TRT_KVCacheUpdate": "KV_CACHE_UPDATE",
}
PLUGIN_LAYERS = ("PLUGIN_V3", "PLUGIN_V2", "PLUGIN")
SUFFIX = "_AttentionInput"  # the parser's own, behind the name of the node


@dataclass(frozen=True)
class Asked:
    """A node that has to become one layer: its name, the layer's type, how many inputs it has."""

    node: str
    type: str
    inputs: int


def asked_of(model: ir.Model, plugin_domains: Iterable[str] = ()) -> list[Asked]:
    """The nodes of a flat graph that are checked."""
    domains, found = tuple(plugin_domains), []
    for node in model.graph.all_nodes():
        inputs = sum(value is not None for value in node.inputs)
        if node.domain in domains:
            found.append(Asked(node.name or "", PLUGIN_LAYERS[0], inputs))
        elif node.op_type in LAYERS:
            found.append(Asked(node.name or "", LAYERS[node.op_type], inputs))
    return found


def compare(asked: Sequence[Asked], layers: Sequence[Mapping[str, Any]], flavour: Flavour) -> None:
    """Every node asked for is a layer with as many inputs.

    Raises:
        EngineError: naming the node, what was asked and what is there.
    """
    made = {_node_of(layer): layer for layer in layers if _type(layer) in _TYPES}
    for each in asked:
        layer = made.get(each.node)
        if layer is None or _type(layer) != each.type:
            raise EngineError(
                f"{flavour.title} dropped a layer: no {each.type} was made of this node",
                where=each.node,
                found=str(layer["type"]) if layer else "no layer",
                available=[each.type],
            )
        inputs = sum(tensor is not None for tensor in layer["inputs"])
        if inputs != each.inputs:
            raise EngineError(
                f"{flavour.title} dropped an input of this node without a word",
                where=each.node,
                found=f"{inputs} inputs in the network",
                available=[f"{each.inputs} inputs in the graph"],
                hint="another form of attention keeps it: attention: mask",
            )


_TYPES = {"PLUGIN_V3", *LAYERS.values()}


def _type(layer: Mapping[str, Any]) -> str:
    kind = str(layer["type"])
    return "PLUGIN_V3" if kind in PLUGIN_LAYERS else kind


def _node_of(layer: Mapping[str, Any]) -> str:
    name = str(layer.get("node") or layer["name"])
    return name.removesuffix(SUFFIX)
