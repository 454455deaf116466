"""Lower the largest value along an axis to the first of those in order.

    Before   ReduceMax(x, [axis])
    After    TopK(x, 1; axis), and Squeeze where the axis goes

onnxruntime's CUDA provider has a kernel for ReduceMax of opset 18, and none for that of opset 20,
which our graphs have. Of several axes it stays, and the engine is refused by its name.
"""

from __future__ import annotations

import numpy as np

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import ints_of

__all__ = ["LowerLargest"]


class LowerLargest(LeptonPass):
    """Lower ReduceMax of one axis to TopK."""

    name = "lower-largest"
    summary = "The largest along an axis to TopK, for which CUDA has a kernel"
    changes_numbers = False

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("ReduceMax"):
            axes = ints_of(body, node.inputs[1] if len(node.inputs) > 1 else None)
            if axes is None or len(axes) != 1:
                self.refuse(body, node, "of other than one axis that is known")
                continue
            one = body.constant_node(node, np.array([1]))
            top = body.emit(node, "TopK", [node.inputs[0], one], {"axis": axes[0]}, outputs=2)
            found = top.outputs[0]
            if not node.attributes.get_int("keepdims", 1):
                found = body.emit(node, "Squeeze", [found, node.inputs[1]]).outputs[0]
            body.replace(node.outputs[0], found)
            self.fire(body)
