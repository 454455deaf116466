"""Find the Gelu that a model spells out.

    tanh     0.5 x (1 + Tanh(0.79788 (x + 0.044715 x^3)))      ->  Gelu<approximate=tanh>(x)
    erf      0.5 x (1 + Erf(x / 1.41421))                      ->  Gelu(x)

The factor 0.5 may be on either side. Refuses: constants that are not those of Gelu,
or that have more axes than x.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import is_op, made_by, rank_of, readers, scalar_of

__all__ = ["FuseGelu"]

_TOLERANCE = 1e-4


class FuseGelu(LeptonPass):
    """Find the Gelu that a model spells out."""

    name = "fuse-gelu"
    summary = "Gelu from Tanh or Erf"
    changes_numbers = True
    counts_as = "gelu"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Tanh", "Erf"):
            x = _erf_of(body, node) if node.op_type == "Erf" else _tanh_of(body, node)
            if x is None:
                continue
            end = _end(body, node, x)
            if end is None:
                self.refuse(body, node, "what follows is not 0.5 x (1 + ..)")
                continue
            if not _keeps_rank(body, end, x):
                self.refuse(body, node, "a constant has more axes than what it is applied to")
                continue
            kind = "none" if node.op_type == "Erf" else "tanh"
            new = body.emit(end, "Gelu", [x], {"approximate": kind})
            body.replace(end.outputs[0], new.outputs[0])
            self.fire(body)


def _factor(body: Body, value: ir.Value | None, expected: float) -> ir.Value | None:
    """``a`` when ``value`` is ``a * expected`` (or ``a / (1 / expected)``)."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return None
    pairs = [tuple(node.inputs)]
    if node.op_type == "Mul":
        pairs.append((node.inputs[1], node.inputs[0]))
    for a, b in pairs:
        constant = scalar_of(body, b)
        if constant is None or constant == 0:
            continue
        found = constant if node.op_type == "Mul" else 1 / constant
        if math.isclose(found, expected, rel_tol=_TOLERANCE):
            return a
    return None


def _erf_of(body: Body, node: ir.Node) -> ir.Value | None:
    return _factor(body, node.inputs[0], math.sqrt(0.5))


def _tanh_of(body: Body, node: ir.Node) -> ir.Value | None:
    add = made_by(_factor(body, node.inputs[0], math.sqrt(2 / math.pi)), "Add")
    if add is None:
        return None
    for x, cubic in (add.inputs, reversed(add.inputs)):
        if x is not None and _is_cube(body, _factor(body, cubic, 0.044715), x):
            return x
    return None


def _is_cube(body: Body, value: ir.Value | None, x: ir.Value) -> bool:
    power = made_by(value, "Pow")
    if power is not None:
        return power.inputs[0] is x and scalar_of(body, power.inputs[1]) == 3
    product = made_by(value, "Mul")
    if product is None or x not in product.inputs:
        return False
    other = product.inputs[1] if product.inputs[0] is x else product.inputs[0]
    square = made_by(other, "Mul")
    return square is not None and list(square.inputs) == [x, x]


def _end(body: Body, node: ir.Node, x: ir.Value) -> ir.Node | None:
    """The node whose output is the whole Gelu."""
    for add in readers(node.outputs[0]):
        if not is_op(add, "Add") or scalar_of(body, _other(add, node.outputs[0])) != 1:
            continue
        for product in readers(add.outputs[0]):
            if not is_op(product, "Mul"):
                continue
            factor = _other(product, add.outputs[0])
            if factor is not None and _factor(body, factor, 0.5) is x:
                return product
            for last in readers(product.outputs[0]):
                halves = _factor(body, last.outputs[0], 0.5) is product.outputs[0]
                halved = scalar_of(body, factor) == 0.5 and is_op(last, "Mul")
                if (factor is x and halves) or (halved and _other(last, product.outputs[0]) is x):
                    return last
    return None


def _keeps_rank(body: Body, end: ir.Node, x: ir.Value) -> bool:
    """Whether no constant on the way from ``x`` to ``end`` brings an axis along."""
    most, pending = rank_of(body, x) or 0, [end]
    while pending:
        for value in pending.pop().inputs:
            constant = body.constant(value)
            if constant is not None and constant.ndim > most:
                return False
            maker = value.producer() if value is not None and value is not x else None
            pending += [maker] if maker is not None and constant is None else []
    return True


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]
