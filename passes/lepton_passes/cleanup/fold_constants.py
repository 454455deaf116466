"""Compute what depends on small constants alone.

    Before   Squeeze(Constant, Constant)
    After    Constant

Only constants of a graph are read, never a weight; a result above ``LIMIT`` elements is declined.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass

__all__ = ["FoldConstants"]

LIMIT = 1 << 12
# fmt: off
FOLDABLE = frozenset({
    "Add", "Cast", "Concat", "Div", "Equal", "Expand", "Gather", "Max", "Min", "Mul", "Neg",
    "Range", "Reshape", "Shape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    "Where",
})
# fmt: on


class FoldConstants(LeptonPass):
    """Compute what depends on small constants alone."""

    name = "fold-constants"
    summary = "Compute nodes that read constants only"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes(*FOLDABLE):
            if not node.inputs:
                continue
            arrays = [_constant(value) for value in node.inputs]
            if any(a is None for a in arrays):
                continue
            result = _compute(node, [a for a in arrays if a is not None], body)
            if result.size > LIMIT:
                self.refuse(body, node, f"the result has {result.size} elements")
                continue
            body.replace(node.outputs[0], body.constant_node(node, result))
            self.fire(body)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Constant" or node.domain:
        return None
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    return tensor.numpy() if tensor is not None and tensor.size <= LIMIT else None


def _compute(node: ir.Node, arrays: list[np.ndarray], body: Body) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    names = [f"x{i}" for i in range(len(arrays))]
    copy = ir.Node(
        "", node.op_type, [ir.Value(name=n) for n in names], node.attributes.values(), num_outputs=1
    )
    copy.outputs[0].name = "y"
    version = body.model.graph.opset_imports.get("", 24)
    proto = onnx.helper.make_function(
        "", "f", names, ["y"], [ir.to_proto(copy)], [onnx.helper.make_opsetid("", version)]
    )
    made = ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)), {})
    return np.asarray(made[0])
