"""Have our own attention multiply small integers where the layers beside it do.

    Before   GroupQueryAttention(..), QuantizedLinear(..)
    After    GroupQueryAttention<rounded=1>(..), ..

A prompt takes half of the time that attention takes in fp32 (heads of 256); a decode step is what
it was. Queries and keys have 12 bits, which costs nothing that can be measured, weights and values
7, which costs less than layers lose that round their inputs to 8 or 7.
Refuses: bodies without such layers; heads below 32, which gain little, and above 512, whose
sums do not fit.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body, bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort.linear import ROUNDED
from lepton_passes.match import width_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerRoundedAttention"]

_OPS = ("GroupQueryAttention", "MultiHeadAttention")
_LEAST, _MOST = 32, 512


class LowerRoundedAttention(LeptonPass):
    """Round what attention multiplies, beside layers that round what they read."""

    name = "lower-rounded-attention"
    summary = "Attention of our own in small integers"
    changes_numbers = True
    tolerances = ROUNDED

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._any = any(_rounds(body) for body in bodies(model))
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes(*_OPS, domain=CPU_DOMAIN):
            reason = _refuses(body, node)
            if reason is None:
                node.attributes.add(ir.AttrInt64("rounded", 1))
                self.fire(body)
            elif self._any:
                self.refuse(body, node, reason)


def _rounds(body: Body) -> bool:
    """Whether a layer rounds what it reads."""
    return bool(body.nodes("QuantizedLinear", "QuantizedExperts", domain=CPU_DOMAIN))


def _refuses(body: Body, node: ir.Node) -> str | None:
    if not _rounds(body):
        return "no layer beside it rounds what it reads"
    width = _head_width(node)
    if width is None:
        return "the width of heads is not known"
    if not _LEAST <= width <= _MOST:
        return f"heads of {width} are not within {_LEAST} and {_MOST}"
    return None


def _head_width(node: ir.Node) -> int | None:
    if node.op_type == "GroupQueryAttention":
        return width_of(node.inputs[3])
    heads = node.attributes.get_int("num_heads")
    # Of layers that were joined nothing says the shape; the result is as wide as the queries.
    if result := width_of(node.outputs[0]):
        return result // heads
    query, *others = node.inputs
    packed = all(value is None for value in others[:1])
    width, parts = width_of(query), 3 if packed else 1
    return width // (parts * heads) if width else None
