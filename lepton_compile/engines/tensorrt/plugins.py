"""Which nodes of a graph are plugins, and which memory plugins and caches share."""

from __future__ import annotations

import onnx_ir as ir

from lepton_compile.errors import EngineError
from lepton_passes.body import MICROSOFT
from lepton_plugins.attention.plugin_qdp import STEPS, step_named
from lepton_plugins.attention.spec import SPEC

__all__ = ["PLUGINS", "aliases_of", "plugin_domains"]

PLUGINS = tuple((SPEC.namespace, op) for op in (SPEC.name, *(step.op for step in STEPS)))
"""(domain, op) of what ``plugin_files`` writes a plugin for, and of its steps that
``baked_plugin`` has compiled into the plan."""

STANDARD = ("", MICROSOFT, "trt", "nvidia")


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
            pairs: list[tuple[ir.Value, ir.Value | None]] = [(node.outputs[0], node.inputs[0])]
        elif (node.domain, node.op_type) in PLUGINS:
            pairs = _written(node)
        else:
            continue
        for written, memory in pairs:
            if written in outputs and memory is not None and memory in inputs:
                found[written.name or ""] = memory.name or ""
    return found


def _written(node: ir.Node) -> list[tuple[ir.Value, ir.Value | None]]:
    """The outputs of a plugin's node that are memory of its inputs, with those."""
    step = step_named(node.op_type)
    inputs = step.inputs if step else [each.name for each in SPEC.inputs]
    outputs = step.outputs if step else [each.name for each in SPEC.outputs]
    given = dict(zip(inputs, node.inputs, strict=False))
    memory = {each.name: given.get(each.alias) for each in SPEC.outputs if each.alias}
    made = zip(outputs, node.outputs, strict=True)
    return [(value, memory[name]) for name, value in made if name in memory]
