"""Write a node of the op as the two that ahead-of-time plugins compute.

    Before   output, present.. = lepton::CachedAttention(query, key, value, past_lengths, caches..)
    After    prefill
                 present.. = CachedAttentionAppend(key, value, past_lengths, caches..)
                 output = CachedAttentionPrefill[Sinks](query, past_lengths, present.., [sinks])
             decode
                 present.., partials.. = CachedAttentionDecode(query, key, value, past_lengths,
                                                               caches..)
                 output = CachedAttentionCombine[Sinks](partials.., [sinks])

``prefill`` is right for any sequence; ``decode`` for DECODE_SEQUENCE tokens at most, and far faster
there. A plan has one of them: a decoder is one plan of the first, or two plans, over one set of
caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import onnx_ir as ir

from lepton_plugins.attention.launch import decode_splits
from lepton_plugins.attention.nodes import variant_of_node
from lepton_plugins.attention.plugin_qdp import Step
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.tiles import architecture, tiles_for
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError

__all__ = ["expand"]

Phase = Literal["prefill", "decode"]
_KERNELS: dict[Phase, tuple[str, str]] = {
    "prefill": ("append", "prefill"),
    "decode": ("decode", "combine"),
}


def expand(model: ir.Model, phase: Phase, *, target: int, batch: int) -> int:
    """Rewrite every node of the op in ``model``; how many there were.

    Args:
        target: 90 for compute capability 9.0, which the plan is built for.
        batch: rows that a decode step usually has: how many parts the keys are cut into is fixed.

    Raises:
        PluginError: a node that there are no kernels for.
    """
    count = 0
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        found = [n for n in graph if (n.domain, n.op_type) == (SPEC.namespace, SPEC.name)]
        for node in found:
            _rewrite(graph, node, phase, target, batch)
        count += len(found)
    if count:
        model.opset_imports[SPEC.namespace] = int(SPEC.version)
    return count


def _rewrite(graph: ir.Graph, node: ir.Node, phase: Phase, target: int, batch: int) -> None:
    variant = variant_of_node(node)
    values = dict(zip((tensor.name for tensor in SPEC.inputs), node.inputs, strict=False))
    made: list[ir.Node] = []
    for kernel in _KERNELS[phase]:
        step = Step(kernel, sinks=variant.sinks and kernel in ("prefill", "combine"))
        attributes = _attributes(step, variant, node, target, batch)
        inputs = [values[name] for name in step.inputs]
        new = ir.node(
            step.op, inputs, attributes, domain=SPEC.namespace, num_outputs=len(step.outputs)
        )
        new.name = f"{node.name}/{kernel}"
        new.metadata_props.update(node.metadata_props)
        made.append(new)
        for name, output in zip(step.outputs, new.outputs, strict=True):
            values[name] = output
            # What comes after reads the caches as they are now.
            values |= {
                f"{part}_cache": output for part in ("key", "value") if name.endswith(f"_{part}")
            }
    for name, output in _partials(values, variant, node, made[0]):
        output.name = f"{node.name}/{name}"
    graph.insert_before(node, made)
    for tensor, old in zip(SPEC.outputs, node.outputs, strict=True):
        new_value = values[tensor.name]
        assert new_value is not None
        new_value.name, new_value.type, new_value.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new_value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _attributes(
    step: Step, variant: Variant, node: ir.Node, target: int, batch: int
) -> dict[str, Any]:
    known: dict[str, Any] = variant.as_dict()
    if "splits" in step.attributes:
        known["splits"] = decode_splits(
            variant,
            tiles_for("decode", target, variant),
            batch=batch,
            sequence=1,
            capacity=_capacity(node),
            processors=architecture(target).processors,
        )
    return {name: known[name] for name in step.attributes}


def _capacity(node: ir.Node) -> int:
    cache = node.inputs[4]
    size = cache.shape[2] if cache is not None and cache.shape is not None else None
    if not isinstance(size, int):
        what = f"the caches of {SPEC.name} have a fixed capacity"
        raise PluginError(what, where=node.name, found=str(size))
    return size


def _partials(
    values: dict[str, ir.Value | None], variant: Variant, node: ir.Node, decode: ir.Node
) -> Iterator[tuple[str, ir.Value]]:
    """The tensors between the two steps, with type and shape."""
    query = node.inputs[0]
    batch = query.shape[0] if query is not None and query.shape is not None else None
    for name in ("partial", "partial_lse"):
        value = values.get(name)
        if value is not None:
            splits = decode.attributes.get_int("splits")
            shape = [batch, variant.kv_num_heads, splits, None]
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape([*shape, variant.head_dim] if name == "partial" else shape)
            yield name, value
