"""A graph of half precision as one of fp32 that rounds where the original would.

CPU kernels for bf16 do not exist, those for fp16 add up in fp16; kernels of GPUs compute in fp32
and round what they store. So each half becomes an fp32 value that went through ``Cast<half>`` and
back, and weights become the fp32 numbers that their halves are. The result runs on plain
onnxruntime, and is what tests and the check after each pass look at.

Attention of onnxruntime norms heads on a GPU alone: for the CPU its norms stand in front of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN
from lepton_passes.dtypes import HALVES, fill_types, set_type
from lepton_passes.emulation_heads import norms_outside
from lepton_passes.match import PAST, PRESENT
from lepton_passes.tensors import cast

__all__ = ["Emulation", "half_of"]

FLOAT = ir.DataType.FLOAT
# They move numbers that are halves already.
# fmt: off
_EXACT = frozenset({
    "Cast", "Concat", "Constant", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze", "Where",
})
# fmt: on


def half_of(model: ir.Model) -> ir.DataType | None:
    """The type of half precision in the main graph, ``None`` where there is none, or in caches
    alone."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [out for node in model.graph for out in node.outputs]
    computed = (v for v in values if not (v.name or "").startswith((*PAST, *PRESENT)))
    return next((value.dtype for value in computed if value.dtype in HALVES), None)


class Emulation:
    """Makes emulations; tensors that several models share stay shared among their emulations."""

    def __init__(self) -> None:
        self._wide: dict[int, tuple[ir.TensorProtocol, ir.TensorProtocol]] = {}

    def __call__(self, model: ir.Model) -> ir.Model:
        """A copy of ``model`` without halves; inputs and outputs that were halves are fp32."""
        copy = model.clone()
        functions = [f.graph for f in copy.functions.values() if f.domain == LAYER_DOMAIN]
        for graph in (copy.graph, *functions):
            norms_outside(graph)
        fill_types(copy)
        for value in copy.graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype in HALVES:
                value.const_value = self._widened(value.const_value)
                set_type(value, FLOAT)
        for graph in (copy.graph, *functions):
            _widen(graph)
        return copy

    def _widened(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        # The source is kept: an id is unique only while its object lives.
        if id(tensor) not in self._wide:
            self._wide[id(tensor)] = (tensor, cast(tensor, FLOAT))
        return self._wide[id(tensor)][1]


def _widen(graph: ir.Graph) -> None:
    for node in list(graph):
        _constant(node)
        for value in node.outputs:
            half = value.dtype
            if half not in HALVES:
                continue
            set_type(value, FLOAT)
            if node.op_type == "Cast":
                _round(graph, node, value, half, narrow=False)
            elif node.op_type not in _EXACT:
                _round(graph, node, value, half, narrow=True)
    for value in graph.inputs:
        if value.dtype in HALVES:
            set_type(value, FLOAT)


def _constant(node: ir.Node) -> None:
    if node.op_type != "Constant" or node.outputs[0].dtype not in HALVES:
        return
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    assert tensor is not None
    node.attributes.add(ir.AttrTensor("value", ir.tensor(tensor.numpy().astype(np.float32))))


def _round(
    graph: ir.Graph, node: ir.Node, value: ir.Value, half: ir.DataType, *, narrow: bool
) -> None:
    """Let the readers of ``value`` read it rounded; ``narrow``: ``value`` is not a half itself."""
    added = [ir.node("Cast", [value], {"to": int(half)})] if narrow else []
    rounded = added[0].outputs[0] if narrow else value
    added.append(ir.node("Cast", [rounded], {"to": int(FLOAT)}))
    wide = added[-1].outputs[0]
    graph.insert_after(node, added)
    uses = [use for use in value.uses() if use.node not in added]
    for use in uses:
        use.node.replace_input_with(use.idx, wide)
    set_type(rounded, half)
    set_type(wide, FLOAT)
    wide.shape = value.shape
    for index, output in enumerate(graph.outputs):
        if output is value:
            name, value.name = value.name, f"{value.name}:half"
            wide.name = name
            graph.outputs[index] = wide
