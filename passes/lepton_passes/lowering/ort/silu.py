"""Lower x * Sigmoid(x) to the kernel that does both.

    Before   Mul(x, Sigmoid(x))
    After    QuickGelu<alpha=1>(x)

QuickGelu computes x * Sigmoid(alpha x). The standard op, Swish, takes three times as long.
"""

from __future__ import annotations

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import made_by

__all__ = ["LowerSilu"]


class LowerSilu(LeptonPass):
    """Lower x * Sigmoid(x) to QuickGelu."""

    name = "lower-silu"
    summary = "x * Sigmoid(x) in one kernel"
    changes_numbers = True
    counts_as = "silu"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Mul"):
            for x, other in (node.inputs, reversed(node.inputs)):
                sigmoid = made_by(other, "Sigmoid")
                if x is None or sigmoid is None or sigmoid.inputs[0] is not x:
                    continue
                new = body.emit(node, "QuickGelu", [x], {"alpha": 1.0}, domain=MICROSOFT)
                body.replace(node.outputs[0], new.outputs[0])
                self.fire(body)
                break
