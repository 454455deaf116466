"""What the readers of a value would have it be: half precision, fp32, or the angles of a rotation.

Followed through ops that only move data, through pointwise ops and into the functions of layers, so
that a value is not narrowed and widened again between two ops that compute in fp32.
"""

from __future__ import annotations

from enum import Enum

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN
from lepton_passes.lowering._own_types import inside, own_types
from lepton_passes.lowering._wide_states import is_wide
from lepton_passes.match import PRESENT, is_op

__all__ = ["MOVES", "POINTWISE", "Want", "Wants"]

# fmt: off
MOVES = frozenset({
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "KeepLast",
    "Pad", "Reshape", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})
POINTWISE = frozenset({
    "Abs", "Add", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Sub", "Tanh", "Where",
})
ALWAYS_WIDE = frozenset({
    "Clip", "Cos", "CumSum", "Div", "Exp", "Log", "LpNormalization", "Pow", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Sin", "Softplus", "Sqrt",
})
ISLANDS = frozenset({
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax",
    "RMSNormalization", "Softmax",
})
# fmt: on


class Want(Enum):
    """What a reader computes in."""

    HALF = "half"
    WIDE = "fp32"
    ROTARY = "angles in fp32"


class Wants:
    """Answers for one model, as it was before anything was cast.

    Args:
        islands: norms, Softmax and rotary embeddings compute in fp32.
    """

    def __init__(self, model: ir.Model, *, islands: bool) -> None:
        self._model = model
        self._islands = islands
        self._inside = inside(model)
        self._known: dict[ir.Value, frozenset[Want]] = {}

    def is_island(self, node: ir.Node) -> bool:
        """Whether the node computes in fp32 whatever surrounds it."""
        if node.op_type == "LinearAttention":
            return True
        if node.domain:
            return False
        if node.op_type in ALWAYS_WIDE:
            return True
        return self._islands and (node.op_type in ISLANDS or node.op_type == "RotaryEmbedding")

    def of(self, value: ir.Value) -> frozenset[Want]:
        """What all readers want; a value nobody reads is wanted as nothing."""
        if value not in self._known:
            found = {want for use in value.uses() for want in self._by(use.node, use.idx)}
            if value.is_graph_output():
                found.add(self._outside(value))
            self._known[value] = frozenset(found)
        return self._known[value]

    def _by(self, node: ir.Node, index: int) -> frozenset[Want]:
        if node in self._inside or own_types(self._model, node):
            return frozenset([Want.WIDE])
        if is_op(node, "RotaryEmbedding") and self._islands:
            return frozenset([Want.ROTARY if index in (1, 2) else Want.WIDE])
        if self.is_island(node):
            return frozenset([Want.WIDE])
        if node.domain == LAYER_DOMAIN:
            function = self._model.functions[node.op_identifier()]
            return self.of(function.inputs[index])
        if node.op_type in MOVES or node.op_type in POINTWISE:
            wants = [self.of(out) for out in node.outputs]
            return frozenset().union(*wants)
        if node.op_type in ("Cast", "Shape", "Size"):
            return frozenset()
        return frozenset([Want.HALF])

    def _outside(self, value: ir.Value) -> Want:
        """Outputs of the model are fp32; between layers, and in caches, values are halves."""
        main = value in self._model.graph.outputs
        kept = (value.name or "").startswith(PRESENT) and not is_wide(value)
        return Want.WIDE if main and not kept else Want.HALF
