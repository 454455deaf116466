"""Lower a bias and the Gelu behind it to one node.

    Before   Gelu(Add(x, b))                        x an fp32 linear layer
    After    BiasGelu(x, b);  FastGelu(x, b) for the tanh form

Kernels of quantized linear layers add the bias themselves, so only fp32 layers are looked at.
"""

from __future__ import annotations

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.linear import linears
from lepton_passes.match import bias_of, only_reader

__all__ = ["LowerBiasGelu"]


class LowerBiasGelu(LeptonPass):
    """Lower a bias and the Gelu behind it to one node."""

    name = "lower-bias-gelu"
    summary = "Bias and Gelu in one kernel, for fp32"
    changes_numbers = True
    counts_as = "bias-gelu"

    def rewrite(self, body: Body) -> None:
        for linear in linears(body):
            if not linear.weight.plain:
                continue
            biased = bias_of(body, linear.y, linear.weight.rows)
            gelu = only_reader(biased[0], "Gelu") if biased is not None else None
            if biased is None or gelu is None:
                continue
            tanh = gelu.attributes.get_string("approximate", "none") == "tanh"
            kernel = "FastGelu" if tanh else "BiasGelu"
            new = body.emit(gelu, kernel, [linear.y, biased[1]], domain=MICROSOFT)
            body.replace(gelu.outputs[0], new.outputs[0])
            self.fire(body)
