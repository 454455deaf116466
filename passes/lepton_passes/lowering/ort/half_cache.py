"""Keep keys and values in halves, where nothing but our own attention reads them.

    Before   past_key_values.* and present.* fp32, GroupQueryAttention(.., past_key, past_value, ..)
    After    the same fp16

What a cache holds is read again for each token that is written: of a model of Qwen3 0.6B's shape it
is as much as its weights of 4 bits from 1,000 tokens on. Halves take half of that, and half of the
memory; what they lose is far less than layers lose that round what they read to 8 bits. A number
beyond their range becomes the largest one.
Refuses: a cache that something else than our attention reads or makes; heads of more than 1,024.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body, bodies
from lepton_passes.contract import ROUNDING, LeptonPass
from lepton_passes.dtypes import set_type
from lepton_passes.match import KEYS_AND_VALUES, width_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerHalfCache"]

HALF = ir.DataType.FLOAT16
_OP = "GroupQueryAttention"
_PAST = (3, 4)  # inputs of the kernel; of its outputs, all but the first are caches
_WIDEST = 1024


class LowerHalfCache(LeptonPass):
    """Keep keys and values in halves."""

    name = "lower-half-cache"
    summary = "KV caches of our own attention in fp16"
    changes_numbers = True
    tolerances = dict.fromkeys(("fp32", "int8", "int4"), ROUNDING[HALF])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        past = {v for v in model.graph.inputs if (v.name or "").startswith(KEYS_AND_VALUES)}
        layers = bodies(model)
        reason = _refuses(layers, past) if past else None
        if reason is not None:
            node, why = reason
            self.refuse(Body(model), node, why)
        elif past:
            for body in layers:
                self.rewrite(body)
        return ir.passes.PassResult(model, modified=bool(self.fired))

    def rewrite(self, body: Body) -> None:
        for node in body.nodes(_OP, domain=CPU_DOMAIN):
            for value in _caches(node):
                for each in (value, *_outside(body, value)):
                    set_type(each, HALF)
            self.fire(body)


def _caches(node: ir.Node) -> Iterator[ir.Value]:
    """What an attention reads and makes of caches."""
    for value in (*(node.inputs[i] for i in _PAST), *node.outputs[1:]):
        if value is not None:
            yield value


def _outside(body: Body, value: ir.Value) -> list[ir.Value]:
    """What the main graph knows it by, one for each call."""
    if body.function is None:
        return [value]
    if value.is_graph_input():
        return body.arguments(value) or []
    places = [i for i, out in enumerate(body.graph.outputs) if out is value]
    return [call.outputs[place] for call in body.calls for place in places]


def _refuses(layers: list[Body], past: set[ir.Value]) -> tuple[ir.Node, str] | None:
    """A node that keeps caches as they are, and why."""
    known: set[ir.Value] = set()
    others = "it reads a cache, and is no attention of ours"
    for body in layers:
        for node in body.nodes(_OP, domain=CPU_DOMAIN):
            if (width_of(node.inputs[_PAST[0]]) or _WIDEST + 1) > _WIDEST:
                return node, f"heads are wider than {_WIDEST}, or nobody knows how wide"
            for value in _caches(node):
                if reader := _reads_otherwise(value):
                    return reader, others
                known.update(_outside(body, value))
    for value in (*known, *past):
        if reader := _reads_otherwise(value):
            return reader, others
    left = [use.node for value in past - known for use in value.uses()]
    return (left[0], others) if left else None


def _reads_otherwise(value: ir.Value) -> ir.Node | None:
    """A reader that is neither our attention, at the place of a cache, nor a layer, whose function
    is looked into, too."""
    for use in value.uses():
        ours = (use.node.domain, use.node.op_type) == (CPU_DOMAIN, _OP) and use.idx in _PAST
        if not ours and use.node.domain != LAYER_DOMAIN:
            return use.node
    return None
