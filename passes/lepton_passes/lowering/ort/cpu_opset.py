"""Lower the standard opset to one that has CPU kernels for the ops of the graph.

    Before   opset 24, with RoiAlign, RandomNormal or another that opset 22 gave one type more
    After    opset 21, in every function, too

onnxruntime's CPU provider has kernels for those up to opset 21 alone, and opens no graph with one
of a later form. The table names them: a build does not depend on the onnxruntime at hand.

Refuses: what stands beside such an op, and opset 21 does not have.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body, whole_bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort.opset import newer, set_opset
from lepton_passes.match import is_op

__all__ = ["OLDER", "LowerCpuOpset"]

OLDER = 21
# fmt: off
_UP_TO_OLDER = frozenset({
    "Bernoulli",  # a function of RandomUniformLike
    "GlobalLpPool", "MaxRoiPool", "Multinomial", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "RoiAlign",
})
# fmt: on


class LowerCpuOpset(LeptonPass):
    """Lower the standard opset where an op has a CPU kernel at an older one alone; all bodies or
    none."""

    name = "lower-cpu-opset"
    summary = "An opset at which the CPU has kernels for the ops of the graph"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        every = whole_bodies(model)
        if not any(_wants_older(node) for body in every for node in body.graph.all_nodes()):
            return ir.passes.PassResult(model, modified=False)
        for body in every:
            self.rewrite(body)
        self.fired = int(not self.refusals and set_opset(model, OLDER))
        return ir.passes.PassResult(model, modified=bool(self.fired))

    def rewrite(self, body: Body) -> None:
        for node in body.graph.all_nodes():
            if reason := newer(node, OLDER):
                self.refuse(body, node, reason)


def _wants_older(node: ir.Node) -> bool:
    return is_op(node, *_UP_TO_OLDER)
