"""Which plugins a graph needs, and the module that registers each with the library."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from lepton_compile.errors import EngineError

__all__ = ["PLUGINS", "aliases_of", "plugins_of"]

# (domain, op) -> a module with ``register(library)``: what makes it known to the builder.
PLUGINS: Mapping[tuple[str, str], str] = {
    ("lepton", "CachedAttention"): "lepton_plugins.attention.plugin_v3",
}
STANDARD = ("", "ai.onnx", "com.microsoft", "trt", "nvidia")


def plugins_of(model: ir.Model) -> tuple[list[str], list[str]]:
    """(modules, domains) of the plugins of a flat graph.

    Raises:
        EngineError: a node of a domain of ours has no plugin; it names the node.
    """
    modules: dict[str, str] = {}
    for node in model.graph.all_nodes():
        if node.domain in STANDARD:
            continue
        module = PLUGINS.get((node.domain, node.op_type))
        if module is None:
            raise EngineError(
                f"no plugin computes {node.domain}::{node.op_type}",
                where=node.name,
                available=[f"{domain}::{op}" for domain, op in PLUGINS],
                hint="lepton-compile passes tells which pass should have lowered it",
            )
        modules[module] = node.domain
    return sorted(modules), sorted(set(modules.values()))


def aliases_of(model: ir.Model) -> dict[str, str]:
    """Output -> input in whose memory it is written, of a flat graph."""
    outputs, inputs = set(model.graph.outputs), set(model.graph.inputs)
    found: dict[str, str] = {}
    for node in model.graph.all_nodes():
        if node.op_type in ("TensorScatter", "TRT_KVCacheUpdate"):
            pairs = [(node.outputs[0], node.inputs[0])]
        elif (node.domain, node.op_type) in PLUGINS:
            pairs = list(zip(node.outputs[1:3], node.inputs[4:6], strict=True))
        else:
            continue
        for written, memory in pairs:
            if written in outputs and memory in inputs:
                found[written.name or ""] = memory.name or ""
    return found
