"""Lower a residual sum and the norm that reads it to one node.

    Before   s = Add(x, skip);  y = RMSNormalization(s, gamma)
    After    y, s = SkipSimplifiedLayerNormalization(x, skip, gamma)
    Before   s = Add(Add(x, bias), skip);  y = LayerNormalization(s, gamma, beta)
    After    y, s = SkipLayerNormalization(x, skip, gamma, beta, bias)

The sum is an output only where something else reads it. The bias is taken along from fp32 linear
layers; the kernels of quantized ones add it themselves.
Refuses: sizes that differ or are unknown; a norm over other axes; a sum with a constant; a weight
or a bias of the norm that is broadcast; a mean that something reads; fp64.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import HALVES, type_of
from lepton_passes.linear import linear_of
from lepton_passes.match import (
    NORMS,
    bias_of,
    input_at,
    made_by,
    norm_axis_is_last,
    sizes_of,
    vector_of,
)

__all__ = ["LowerSkipNorm"]

_KERNELS = {
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
    "LayerNormalization": "SkipLayerNormalization",
}
_SUM = 3


class LowerSkipNorm(LeptonPass):
    """Lower a residual sum and its norm to one node."""

    name = "lower-skip-norm"
    summary = "Residual sum and norm in one kernel"
    changes_numbers = True
    counts_as = "skip-norm"

    def rewrite(self, body: Body) -> None:
        for norm in body.nodes(*NORMS):
            add = made_by(norm.inputs[0], "Add")
            if add is None or add.outputs[0].is_graph_output():
                continue
            if any(body.weights(v) for v in add.inputs):
                continue
            reason = _refuses(body, norm, add)
            if reason is not None:
                self.refuse(body, norm, reason)
                continue
            self._lower(body, norm, add)

    def _lower(self, body: Body, norm: ir.Node, add: ir.Node) -> None:
        x, skip, bias = _operands(body, add)
        gamma, beta = norm.inputs[1], input_at(norm, 2)
        weights = [gamma, beta] if norm.op_type == "LayerNormalization" else [gamma]
        needs_sum = len(add.outputs[0].uses()) > 1
        # In front of the sum, not of the norm: another reader of the sum may come first.
        new = body.emit(
            add,
            _KERNELS[norm.op_type],
            [x, skip, *weights, bias],
            {"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
            domain=MICROSOFT,
            outputs=_SUM + 1 if needs_sum else 1,
        )
        body.replace(norm.outputs[0], new.outputs[0])
        if needs_sum:
            for unused in new.outputs[1:_SUM]:
                unused.name = ""
            body.replace(add.outputs[0], new.outputs[_SUM])
        self.fire(body)


def _operands(body: Body, add: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """(x, skip, bias of x)."""
    first, second = add.inputs
    assert first is not None
    assert second is not None
    for x, skip in ((first, second), (second, first)):
        inner = made_by(x, "Add")
        if inner is None or len(x.uses()) > 1:
            continue
        for product in inner.inputs:
            node = made_by(product, "MatMul")
            linear = linear_of(body, node) if node is not None else None
            if linear is None or not linear.weight.plain:
                continue
            biased = bias_of(body, linear.y, linear.weight.rows)
            if biased is not None and biased[0] is x:
                return linear.y, skip, biased[1]
    return first, second, None


def _refuses(body: Body, norm: ir.Node, add: ir.Node) -> str | None:
    if any(out.uses() or out.is_graph_output() for out in norm.outputs[1:]):
        return "the norm gives its mean"
    if not norm_axis_is_last(norm):
        return "the norm runs over other axes than the last"
    if norm.attributes.get_int("stash_type", 1) != 1:
        return "the norm does not compute in fp32"
    width = vector_of(body, norm.inputs[1])
    if width is None or width < 2:  # one number is broadcast
        return "the weight of the norm is not a constant vector"
    beta = input_at(norm, 2)
    if beta is not None and vector_of(body, beta) != width:
        return "the bias of the norm is no constant vector as long as its weight"
    types = {type_of(body, value) for value in (add.outputs[0], norm.inputs[1])}
    if len(types) > 1 or not types <= {ir.DataType.FLOAT, *HALVES}:
        return "the kernel has no fp64, and one type for all it reads"
    sizes = [sizes_of(body, value) for value in add.inputs]
    if None in sizes:
        return "the sizes of the sum are unknown"
    if sizes[0] != sizes[1] or len(sizes[0] or ()) not in (2, 3):
        return "the two sides of the sum differ in size"
    return None
