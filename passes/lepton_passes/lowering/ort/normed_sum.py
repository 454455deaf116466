"""Take the norm of a branch and the residual sum behind it in one kernel of our own.

    Before   n = Normalization(x, gamma);  y = Add(n, residual)
    After    y = Normalization(x, gamma, , residual)
    Before   n = Normalization(x, own);  y, sum = SkipNormalization(n, skip, gamma)
    After    y, sum = SkipNormalization(x, skip, gamma, , own)

Gemma and OLMo 2 norm what a block gives before they add it. An op less saves a
prompt reading and writing all tokens, and a decode step a call.
Refuses: a norm that something else reads; one with a bias, or of another kind or epsilon than that
behind the sum; sides of a sum that differ in size or are unknown.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import input_at, made_by, only_reader, sizes_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNormedSum"]

_NORM, _SKIP = "Normalization", "SkipNormalization"


class LowerNormedSum(LeptonPass):
    """Sums behind norms, in the kernel of the norm."""

    name = "lower-normed-sum"
    summary = "Norms of branches and their sums in one kernel of our own"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        for node in [*body.nodes(_SKIP, domain=CPU_DOMAIN), *body.nodes("Add")]:
            found = [norm for value in node.inputs[:2] if (norm := _norm_of(value)) is not None]
            if not found:
                continue
            reasons = [_refuses(body, node, norm) for norm in found]
            for norm, reason in zip(found, reasons, strict=True):
                if reason is None:
                    self._lower(body, node, norm)
                    break
            else:
                self.refuse(body, node, str(reasons[0]))

    def _lower(self, body: Body, node: ir.Node, norm: ir.Node) -> None:
        x, gamma = norm.inputs[:2]
        other = next(value for value in node.inputs[:2] if value is not norm.outputs[0])
        if node.op_type == _SKIP:
            beta = input_at(node, 3)
            inputs = [x, other, node.inputs[2], beta, gamma]
        else:
            inputs = [x, gamma, None, other]
        attributes: dict[str, int | float] = {"epsilon": _epsilon(norm), "rms": _rms(norm)}
        op = _SKIP if node.op_type == _SKIP else _NORM
        new = body.emit(node, op, inputs, attributes, domain=CPU_DOMAIN, outputs=len(node.outputs))
        body.replace_all(node.outputs, new.outputs)
        self.fire(body)


def _norm_of(value: ir.Value | None) -> ir.Node | None:
    """The norm that makes a value, and does nothing more."""
    node = made_by(value, _NORM, domain=CPU_DOMAIN)
    whole = node is not None and all(each is None for each in node.inputs[3:])
    return node if whole else None


def _refuses(body: Body, node: ir.Node, norm: ir.Node) -> str | None:
    if only_reader(norm.outputs[0]) is not node or node.inputs[0] is node.inputs[1]:
        return "something else reads what is normed"
    if any(value is not None for value in norm.inputs[2:]):
        return "the norm has a bias"
    if node.op_type == _SKIP:
        alike = (_epsilon(node), _rms(node)) == (_epsilon(norm), _rms(norm))
        return None if alike else "the two norms are of other kinds"
    sizes = [_sizes(body, value) for value in node.inputs]
    if None in sizes or sizes[0] != sizes[1]:
        return "the two sides of the sum differ in size, or it is unknown"
    return None


def _sizes(body: Body, value: ir.Value | None) -> tuple[object, ...] | None:
    """Those of a value; a norm leaves them as they are."""
    norm = made_by(value, _NORM, domain=CPU_DOMAIN)
    return sizes_of(body, norm.inputs[0] if norm is not None else value)


def _epsilon(norm: ir.Node) -> float:
    return norm.attributes.get_float("epsilon", 1e-5)


def _rms(norm: ir.Node) -> int:
    return norm.attributes.get_int("rms", 0)
