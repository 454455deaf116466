"""Which nodes of a graph are plugins, and which memory plugins and caches share."""

from __future__ import annotations

import onnx_ir as ir

from lepton_compile.errors import EngineError

__all__ = ["PLUGINS", "aliases_of", "plugin_domains"]

PLUGINS = (("lepton", "CachedAttention"),)
"""(domain, op) of what ``plugin_files`` writes a plugin for."""

STANDARD = ("", "ai.onnx", "com.microsoft", "trt", "nvidia")


def plugin_domains(model: ir.Model) -> list[str]:
    """Domains of the plugins of a flat graph.

    Raises:
        EngineError: a node of a domain of ours has no plugin; it names the node.
    """
    domains: set[str] = set()
    for node in model.graph.all_nodes():
        if node.domain in STANDARD:
            continue
        if (node.domain, node.op_type) not in PLUGINS:
            raise EngineError(
                f"no plugin computes {node.domain}::{node.op_type}",
                where=node.name,
                available=[f"{domain}::{op}" for domain, op in PLUGINS],
                hint="lepton-compile passes tells which pass should have lowered it",
            )
        domains.add(node.domain)
    return sorted(domains)


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
