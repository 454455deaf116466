"""Bring a residual stream that only norms read into the range of fp16.

    Before   h = Mul(Gather(table, ids), c);  s = Add(h, RMSNormalization(x, g)), ..
             y = RMSNormalization(s, w, eps)
    After    the same with c / 64, g / 64 and eps / 64**2

Gemma 3 adds up to 100,000 and more there, where fp16 ends at 65,504; all else in it stays below
1,000. What the norms give does not change by a bit, for 64 is a power of two and they divide by the
size of what they read.
Refuses: a stream that something else reads or leaves the model (OLMo 2), or to which something else
than a norm adds (Llama).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body, bodies
from lepton_passes.contract import SAME, LeptonPass
from lepton_passes.match import made_by, only_reader
from lepton_passes.tensors import StreamedTensor, mapped

__all__ = ["LowerResidualScale"]

SCALE = 64.0


class LowerResidualScale(LeptonPass):
    """Bring a residual stream that only norms read into the range of fp16."""

    name = "lower-residual-scale"
    summary = "The sums between layers in the range of fp16, where only norms read them"
    changes_numbers = True
    tolerances = dict.fromkeys(("fp32", "int8", "int4"), SAME)

    def rewrite(self, body: Body) -> None:
        if body.function is not None:
            return
        layers = {call: each for each in bodies(body.model) for call in each.calls}
        for source in body.nodes("Mul"):
            factor = _factor(body, source)
            if factor is None:
                continue
            stream = _Stream(body, layers)
            found = stream.follow(source.outputs[0])
            if found is not None:
                self.refuse(*found)
            elif stream.added:
                self._scale(body, source, factor, stream)

    def _scale(self, body: Body, source: ir.Node, factor: int, stream: _Stream) -> None:
        constant = body.constant(source.inputs[factor])
        assert constant is not None
        scaled = body.constant_node(source, (constant / SCALE).astype(constant.dtype))
        source.replace_input_with(factor, scaled)
        for each, norm in stream.added:
            gamma = norm.inputs[1]
            assert gamma is not None
            made = each.derive([gamma], f"{gamma.name}:scaled", lambda t: _scaled(t[0]))
            norm.replace_input_with(1, made)
            self.fire(each)
        for _, norm in stream.read:
            epsilon = norm.attributes.get_float("epsilon", 1e-5) / SCALE**2
            norm.attributes.add(ir.AttrFloat32("epsilon", epsilon))


@dataclass
class _Stream:
    """Values that are sums of one residual stream, in the main graph and in the layers.

    Attributes:
        added: norms whose output goes into a sum and nowhere else.
        read: norms that read a sum.
    """

    main: Body
    layers: Mapping[ir.Node, Body]
    added: list[tuple[Body, ir.Node]] = field(default_factory=list)
    read: list[tuple[Body, ir.Node]] = field(default_factory=list)

    def follow(self, first: ir.Value) -> tuple[Body, ir.Node, str] | None:
        """Find all of them; what stands against scaling them."""
        self._values, pending = {first}, [(self.main, first)]
        while pending:
            body, value = pending.pop()
            if value.is_graph_output() and body.function is None:
                node = value.producer()
                assert node is not None
                return body, node, "the sums between layers are an output of the model"
            more = self._leaving(body, value)
            for use in value.uses():
                made = self._through(body, use.node, use.idx)
                if isinstance(made, str):
                    return body, use.node, made
                more += made
            for each in more:
                if each[1] not in self._values:
                    self._values.add(each[1])
                    pending.append(each)
        return self._mixed()

    def _leaving(self, body: Body, value: ir.Value) -> list[tuple[Body, ir.Value]]:
        """The same numbers where the layer is called."""
        results = body.results(value) if body.function is not None else []
        return [(self.main, each) for each in results]

    def _through(self, body: Body, node: ir.Node, index: int) -> list[tuple[Body, ir.Value]] | str:
        """Where a sum goes on in a node; why it cannot be scaled."""
        if node.domain == LAYER_DOMAIN:
            layer = self.layers[node]
            return [(layer, layer.graph.inputs[index])]
        if node.domain or node.graph is not body.graph:
            return "it reads the sums between layers, and is no norm"
        if node.op_type == "RMSNormalization" and index == 0:
            self.read.append((body, node))
            return []
        if node.op_type == "Identity":
            return [(body, node.outputs[0])]
        if node.op_type != "Add":
            return "it reads the sums between layers, and is no norm"
        norm = made_by(node.inputs[1 - index], "RMSNormalization")
        if norm is None or only_reader(norm.outputs[0]) is not node:
            return "what it adds to the sums between layers does not come from a norm alone"
        if not body.weights(norm.inputs[1]):
            return "the weight of the norm before it is not a constant"
        self.added.append((body, norm))
        return [(body, node.outputs[0])]

    def _mixed(self) -> tuple[Body, ir.Node, str] | None:
        """A layer that is given such a sum in one call and something else in another."""
        for body in {id(each): each for each in self.layers.values()}.values():
            for index, value in enumerate(body.graph.inputs):
                if value not in self._values:
                    continue
                for call in body.calls:
                    if call.inputs[index] not in self._values:
                        return self.main, call, "it is given something else than the layers like it"
        return None


def _factor(body: Body, node: ir.Node) -> int | None:
    """Which input of a Mul is the scalar that scales looked up rows of a table."""
    for index in (0, 1):
        rows = made_by(node.inputs[1 - index], "Gather")
        constant = body.constant(node.inputs[index])
        if rows is not None and body.weights(rows.inputs[0]) and constant is not None:
            return index if constant.size == 1 else None
    return None


def _scaled(tensor: ir.TensorProtocol) -> StreamedTensor:
    return mapped(tensor, f"{tensor.name}:scaled", lambda rows: (rows / SCALE).astype(rows.dtype))
