"""Lower convolutions with a state to the kernel of onnxruntime.

    Before   y, present = ai.lepton::CausalConvWithState(x, weight, past)
    After    y, present = com.microsoft::CausalConvWithState(x, weight, , past)

The body of the first copies past and new inputs together and takes the end off again; the kernel
reads them where they are.
"""

from __future__ import annotations

from lepton_passes.body import DIALECT, MICROSOFT, Body
from lepton_passes.contract import LeptonPass

__all__ = ["LowerCausalConv"]


class LowerCausalConv(LeptonPass):
    """Lower convolutions with a state to CausalConvWithState."""

    name = "lower-causal-conv"
    summary = "Causal convolutions with a state to the kernel of onnxruntime"
    changes_numbers = True
    counts_as = "causal_conv"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("CausalConvWithState", domain=DIALECT):
            x, weight, past = node.inputs
            made = body.emit(
                node,
                "CausalConvWithState",
                [x, weight, None, past],
                {"ndim": 1, "activation": "none"},
                domain=MICROSOFT,
                outputs=2,
            )
            body.replace_all(node.outputs, made.outputs)
            self.fire(body)
