"""Compute the same thing once.

    Before   a = Cast<BOOL>(mask);  b = Cast<BOOL>(mask)
    After    a, read twice

Nodes agree in op, attributes, inputs and which outputs they give, and draw no random numbers.
Weights are shared when they are the same tensor object, or small constants with the same content; a
weight of the checkpoint is never read for this.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import is_op
from lepton_passes.tensors import StreamedTensor

__all__ = ["ShareNodes"]

SMALL = 1 << 12
# fmt: off
_RANDOM = frozenset({
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
})
# fmt: on


class ShareNodes(LeptonPass):
    """Compute the same thing once."""

    name = "share-nodes"
    summary = "Share equal nodes and equal initializers"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._drawing = _drawing(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        if body.function is None:
            self._share_initializers(body)
        seen: dict[Hashable, ir.Node] = {}
        for node in body.nodes():
            key = None if _draws(node, self._drawing) else _key(node)
            if key is None:
                continue
            known = seen.setdefault(key, node)
            if known is node or any(out.is_graph_output() for out in node.outputs):
                continue
            body.replace_all(node.outputs, known.outputs)
            self.fire(body)

    def _share_initializers(self, body: Body) -> None:
        seen: dict[Hashable, ir.Value] = {}
        for value in list(body.graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or value.is_graph_input() or value.is_graph_output():
                continue
            known = seen.setdefault(_content(tensor), value)
            if known is not value:
                body.replace(value, known)
                self.fire(body)


def _content(tensor: ir.TensorProtocol) -> Hashable:
    streamed = isinstance(tensor, StreamedTensor)  # of a checkpoint: it is not read to compare
    if streamed or tensor.size > SMALL or tensor.dtype == ir.DataType.STRING:
        return id(tensor)
    return tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()


def _drawing(model: ir.Model) -> set[ir.OperatorIdentifier]:
    """Functions that draw random numbers, or call others that do."""
    found: set[ir.OperatorIdentifier] = set()
    while True:
        more = {
            key
            for key, function in model.functions.items()
            if key not in found and any(_draws(node, found) for node in function.all_nodes())
        }
        if not more:
            return found
        found |= more


def _draws(node: ir.Node, drawing: Collection[ir.OperatorIdentifier]) -> bool:
    return is_op(node, *_RANDOM) or node.op_identifier() in drawing


def _key(node: ir.Node) -> Hashable | None:
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.is_ref() or attribute.type in (
            ir.AttributeType.GRAPH,
            ir.AttributeType.GRAPHS,
        ):
            return None
        if attribute.type == ir.AttributeType.TENSOR:
            attributes.append((name, _content(attribute.as_tensor())))
        else:
            attributes.append((name, attribute.type, _exact(attribute)))
    inputs = tuple(id(value) for value in node.inputs)
    given = tuple(value.name != "" for value in node.outputs)
    return node.op_identifier(), inputs, tuple(attributes), given


def _exact(attribute: ir.Attr) -> Hashable:
    """The value of an attribute; 0.0 and -0.0, which are equal, are told apart."""
    if attribute.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        return repr(attribute.value)
    return tuple(attribute.value) if isinstance(attribute.value, list) else attribute.value
