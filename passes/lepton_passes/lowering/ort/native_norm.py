"""Lower norms over the last axis to our own CPU kernels, the residual sum inside.

    Before   RMSNormalization(x, gamma);  LayerNormalization(x, gamma, beta)
             SkipSimplifiedLayerNormalization(x, skip, gamma);  SkipLayerNormalization(.., beta)
    After    Normalization(x, gamma, beta);  y, sum = SkipNormalization(x, skip, gamma, beta)

A row is worked on while it is in the cache; the kernels of onnxruntime take about three times as
long for the sum and the norm of MiniLM's 4,096 rows of 384.
Refuses: a norm over other axes than the last, or not in fp32; a weight or a bias of the norm that
is broadcast; a bias of the sum; sides of it that differ in size, of files also where that is not
known; a mean that something reads; attributes that are not known.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import type_of
from lepton_passes.match import NORMS, input_at, norm_axis_is_last, sizes_of, vector_of
from lepton_passes.origin import from_file
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeNorm"]

_SKIP = ("SkipSimplifiedLayerNormalization", "SkipLayerNormalization")
_RMS = ("RMSNormalization", "SkipSimplifiedLayerNormalization")
_SUM = 3
_EPSILON, _SKIP_EPSILON = 1e-5, 1e-12  # where none is given: of ONNX, and of onnxruntime


class LowerNativeNorm(LeptonPass):
    """Lower norms to kernels of our own."""

    name = "lower-native-norm"
    summary = "Norms to kernels of our own"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        for node in [*body.nodes(*NORMS), *body.nodes(*_SKIP, domain=MICROSOFT)]:
            skip = node.op_type in _SKIP
            reason = _refuses_skip(body, node) if skip else _refuses(body, node)
            if type_of(body, node.inputs[0]) not in (ir.DataType.FLOAT, None):
                reason = "the kernel reads fp32 alone"
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            self._lower(body, node, skip)

    def _lower(self, body: Body, node: ir.Node, skip: bool) -> None:
        op_type = "SkipNormalization" if skip else "Normalization"
        attributes: dict[str, int | float] = {
            "epsilon": node.attributes.get_float("epsilon", _SKIP_EPSILON if skip else _EPSILON),
            "rms": int(node.op_type in _RMS),
        }
        summed = skip and len(node.outputs) > _SUM
        new = body.emit(
            node, op_type, node.inputs, attributes, domain=CPU_DOMAIN, outputs=1 + summed
        )
        body.replace(node.outputs[0], new.outputs[0])
        if summed:
            body.replace(node.outputs[_SUM], new.outputs[1])
        self.fire(body)


def _refuses(body: Body, node: ir.Node) -> str | None:
    if not norm_axis_is_last(node):
        return "the norm runs over other axes than the last"
    if node.attributes.get_int("stash_type", 1) != 1:
        return "the norm does not compute in fp32"
    if len(node.outputs) > 1:
        return "the norm gives its mean"
    width = _width(body, node.inputs[1])
    if width is None or width < 2:  # one number is broadcast
        return "the weight of the norm is not a constant vector"
    beta = input_at(node, 2)
    if beta is not None and _width(body, beta) != width:
        return "the bias of the norm is no constant vector as long as its weight"
    return None


def _width(body: Body, value: ir.Value | None) -> int | None:
    """Length of a vector that is a weight, or a constant of the graph."""
    width = vector_of(body, value)
    constant = body.constant(value) if width is None else None
    return len(constant) if constant is not None and constant.ndim == 1 else width


def _refuses_skip(body: Body, node: ir.Node) -> str | None:
    bias = 3 if node.op_type in _RMS else 4
    if any(value is not None for value in node.inputs[bias:]):
        return "the sum has a bias"
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:_SUM]):
        return "the norm gives its mean"
    if others := {*node.attributes} - {"epsilon"}:
        return f"our kernel has no {min(others)}"
    # Of sums that lower-skip-norm made it has seen the sizes; those of files may broadcast.
    sizes = [sizes_of(body, value) for value in node.inputs[:2]]
    unknown = None in sizes
    if sizes[0] == sizes[1] and not unknown:
        return None
    wrong = not unknown or from_file(body.model)
    return "the two sides of the sum differ in size, or it is unknown" if wrong else None
