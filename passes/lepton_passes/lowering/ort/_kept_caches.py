"""Caches that nothing but our own attention reads, in another type than is computed in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body, bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import set_type
from lepton_passes.match import KEYS_AND_VALUES, width_of
from lepton_passes.origin import from_file
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["OF_FILE", "WIDEST", "CachePass"]

WIDEST = 1024  # heads of which the kernel keeps other things than floats
OF_FILE = "caches of an ONNX file go in and out in the type that it gives them"
_OP = "GroupQueryAttention"
_PAST = (3, 4)  # inputs of the kernel; of its outputs, all but the first are caches


class CachePass(LeptonPass):
    """Have caches be of type ``kept`` from end to end, or none of them."""

    kept: ClassVar[ir.DataType]

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        past = {v for v in model.graph.inputs if (v.name or "").startswith(KEYS_AND_VALUES)}
        layers = bodies(model)
        reason = self._refuses(model, layers, past) if past else None
        if reason is not None:
            node, why = reason
            self.refuse(Body(model), node, why)
        elif past:
            for body in layers:
                self.rewrite(body)
        return ir.passes.PassResult(model, modified=bool(self.fired))

    @abstractmethod
    def lacks(self, width: int | None) -> str | None:
        """Why the kernel does not keep heads of a ``width``, which may be unknown, in this type."""

    def row(self, width: int) -> int:
        """How many numbers of the type a head of ``width`` takes."""
        return width

    def rewrite(self, body: Body) -> None:
        for node in body.nodes(_OP, domain=CPU_DOMAIN):
            for value in _caches(node):
                for each in (value, *_outside(body, value)):
                    self._change(each)
            self.fire(body)

    def _change(self, value: ir.Value) -> None:
        if value.dtype == self.kept:
            return
        set_type(value, self.kept)
        width = width_of(value)
        if value.shape is not None and width is not None:
            value.shape = ir.Shape([*value.shape[:-1], self.row(width)])

    def _refuses(
        self, model: ir.Model, layers: list[Body], past: set[ir.Value]
    ) -> tuple[ir.Node, str] | None:
        """A node that keeps caches as they are, and why."""
        if from_file(model):  # callers hold its caches, in the types that it says
            readers = (use.node for v in model.graph.inputs if v in past for use in v.uses())
            reader = next(readers, None)
            return (reader, OF_FILE) if reader is not None else None
        known: set[ir.Value] = set()
        others = "it reads a cache, and is no attention of ours"
        for body in layers:
            for node in body.nodes(_OP, domain=CPU_DOMAIN):
                if reason := self.lacks(width_of(node.inputs[_PAST[0]])):
                    return node, reason
                for value in _caches(node):
                    if reader := _reads_otherwise(value):
                        return reader, others
                    known.update(_outside(body, value))
        for value in (*known, *past):
            if reader := _reads_otherwise(value):
                return reader, others
        left = [use.node for value in past - known for use in value.uses()]
        return (left[0], others) if left else None


def _caches(node: ir.Node) -> Iterator[ir.Value]:
    """What an attention reads and makes of caches."""
    for value in (*(node.inputs[i] for i in _PAST), *node.outputs[1:]):
        if value is not None:
            yield value


def _outside(body: Body, value: ir.Value) -> list[ir.Value]:
    """What the main graph knows it by, one for each call."""
    return (body.arguments(value) or []) if value.is_graph_input() else body.results(value)


def _reads_otherwise(value: ir.Value) -> ir.Node | None:
    """A reader that is neither our attention, at the place of a cache, nor a layer, whose function
    is looked into, too."""
    for use in value.uses():
        ours = (use.node.domain, use.node.op_type) == (CPU_DOMAIN, _OP) and use.idx in _PAST
        if not ours and use.node.domain != LAYER_DOMAIN:
            return use.node
    return None
