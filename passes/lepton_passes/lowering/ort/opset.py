"""Lower the standard opset to the newest that every provider of onnxruntime covers.

    Before   opset 24
    After    opset 23, in the main graph and in every function

A kernel whose range is open at the top serves only ops that came with its first opset: onnxruntime
matches versions exactly there. The CUDA provider's Cast, Reshape, Squeeze, Transpose and Unsqueeze
say "23 and up", so the same nodes at opset 24 run on the CPU, each with a copy to and fro, and
nothing is reported. Between 23 and 24 the ops of our graphs changed in the types they allow only.

Refuses: an op, or an attribute of one, that opset 23 does not have.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from lepton_passes.body import Body, bodies
from lepton_passes.contract import LeptonPass

__all__ = ["OPSET", "LowerOpset"]

OPSET = 23


class LowerOpset(LeptonPass):
    """Lower the standard opset; all bodies or none."""

    name = "lower-opset"
    summary = "Opset 23, which the kernels of GPUs are registered for"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        for body in bodies(model):
            self.rewrite(body)
        graphs = [model.graph, *(function.graph for function in model.functions.values())]
        newer = [g for g in graphs if g.opset_imports.get("", 0) > OPSET]
        if self.refusals or not newer:
            return ir.passes.PassResult(model, modified=False)
        for graph in newer:
            graph.opset_imports[""] = OPSET
        self.fired = 1
        return ir.passes.PassResult(model, modified=True)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes():
            if node.domain in ("", "ai.onnx") and (reason := _newer(node)):
                self.refuse(body, node, reason)


def _newer(node: ir.Node) -> str | None:
    """What the node has that opset 23 has not; ops of onnxruntime in this domain are not asked."""
    if not onnx.defs.has(node.op_type):
        return None
    try:
        known = onnx.defs.get_schema(node.op_type, max_inclusive_version=OPSET)
    except onnx.defs.SchemaError:
        return f"the op is newer than opset {OPSET}"
    added = sorted(set(node.attributes) - set(known.attributes))
    if added:
        return f"its attribute {added[0]} is newer than opset {OPSET}"
    if len(node.inputs) > known.max_input:
        return f"it has more inputs than in opset {OPSET}"
    return None
