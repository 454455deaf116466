"""Drop nodes that hand on their input.

Before   Identity, Dropout (inference), Cast to the type it has, Transpose(0,1,2,..)
After    their input
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import perm_of

__all__ = ["DropIdentity"]


class DropIdentity(LeptonPass):
    """Drop nodes that hand on their input."""

    name = "drop-identity"
    summary = "Drop Identity, no-op Cast and no-op Transpose"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Identity", "Dropout", "Cast", "Transpose"):
            x = node.inputs[0]
            if x is None or not _hands_on(node, x):
                continue
            if body.can_replace(node.outputs[0], x):
                body.replace(node.outputs[0], x)
                self.fire(body)
            else:
                self.refuse(body, node, "it gives an input or another output a second name")


def _hands_on(node: ir.Node, x: ir.Value) -> bool:
    if node.op_type == "Cast":
        return x.dtype is not None and int(x.dtype) == node.attributes.get_int("to")
    if node.op_type == "Dropout":
        return len(node.outputs) == 1 and len(node.inputs) < 3
    perm = perm_of(node)
    return node.op_type == "Identity" or (perm is not None and perm == tuple(range(len(perm))))
