"""Lower the standard opset to one that has kernels for the ops of the graph on a GPU.

    Before   opset 24
    After    opset 23, or 21 where an op has a kernel there alone; in every function, too

A kernel whose range is open at the top serves only ops that came with its first opset: onnxruntime
matches versions exactly there. The CUDA provider's MaxPool says "12 and up", so the same node at
opset 22, which allows one type more, runs on the CPU, with a copy to and fro, and nothing is
reported. Before 1.31 that held for Cast, Reshape and Transpose at opset 24. Between 21 and 24 the
ops of our graphs changed in the types that they allow only.

Refuses: an op, or an attribute of one, that opset 23 does not have.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from lepton_passes.body import Body, whole_bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import HALVES, takes
from lepton_passes.lowering.ort._cuda_kernels import has_form

__all__ = ["OPSET", "LowerOpset", "newer", "set_opset"]

OPSET = 23
_OLDER = 21


class LowerOpset(LeptonPass):
    """Lower the standard opset; all bodies or none."""

    name = "lower-opset"
    summary = "An opset at which GPUs have kernels for the ops of the graph"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        for body in whole_bodies(model):
            self.rewrite(body)
        opset = _OLDER if _wants_older(model) else OPSET
        self.fired = int(not self.refusals and set_opset(model, opset))
        return ir.passes.PassResult(model, modified=bool(self.fired))

    def rewrite(self, body: Body) -> None:
        for node in body.graph.all_nodes():
            if reason := newer(node, OPSET):
                self.refuse(body, node, reason)


def set_opset(model: ir.Model, opset: int) -> bool:
    """Have no graph and no function above ``opset``; whether one was."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    above = [graph for graph in graphs if graph.opset_imports.get("", 0) > opset]
    for graph in above:
        graph.opset_imports[""] = opset
    return bool(above)


def newer(node: ir.Node, opset: int) -> str | None:
    """What the node has that an opset has not; ops of onnxruntime in this domain are not asked."""
    if node.domain or not onnx.defs.has(node.op_type):
        return None
    try:
        known = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return f"the op is newer than opset {opset}"
    added = sorted(set(node.attributes) - set(known.attributes))
    if added:
        return f"its attribute {added[0]} is newer than opset {opset}"
    if len(node.inputs) > known.max_input:
        return f"it has more inputs than in opset {opset}"
    return None


def _wants_older(model: ir.Model) -> bool:
    """Whether an op has a kernel at the older opset alone, and none is in the way."""
    nodes = [node for body in whole_bodies(model) for node in body.graph.all_nodes()]
    if any(newer(node, _OLDER) or _of_newer_type(node) for node in nodes):
        return False
    standard = [node for node in nodes if not node.domain]
    return any(has_form(node, _OLDER) and not has_form(node, OPSET) for node in standard)


def _of_newer_type(node: ir.Node) -> bool:
    """Whether the node reads half precision where the older opset's op does not."""
    dtypes = [value.dtype if value is not None else None for value in node.inputs]
    halves = [(i, dtype) for i, dtype in enumerate(dtypes) if dtype in HALVES and dtype is not None]
    return not all(takes(node, index, dtype, _OLDER) for index, dtype in halves)
