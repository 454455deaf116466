"""Compute the same thing once.

    Before   a = Cast<BOOL>(mask);  b = Cast<BOOL>(mask)
    After    a, read twice

Nodes agree in op, attributes and inputs. Weights are shared when they are the same tensor object,
or small constants with the same content; a weight of the checkpoint is never read for this.
"""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.tensors import StreamedTensor

__all__ = ["ShareNodes"]

SMALL = 1 << 12
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial")


class ShareNodes(LeptonPass):
    """Compute the same thing once."""

    name = "share-nodes"
    summary = "Share equal nodes and equal initializers"

    def rewrite(self, body: Body) -> None:
        if body.function is None:
            self._share_initializers(body)
        seen: dict[Hashable, ir.Node] = {}
        for node in body.nodes():
            key = _key(node)
            if key is None:
                continue
            known = seen.setdefault(key, node)
            if known is node or any(out.is_graph_output() for out in node.outputs):
                continue
            for old, new in zip(node.outputs, known.outputs, strict=True):
                body.replace(old, new)
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


def _key(node: ir.Node) -> Hashable | None:
    if node.op_type in _RANDOM:
        return None
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.is_ref() or attribute.type in (
            ir.AttributeType.GRAPH,
            ir.AttributeType.GRAPHS,
        ):
            return None
        if attribute.type == ir.AttributeType.TENSOR:
            attributes.append((name, _content(attribute.as_tensor())))
        else:
            value = attribute.value
            attributes.append((name, tuple(value) if isinstance(value, list) else value))
    inputs = tuple(id(value) for value in node.inputs)
    return node.op_identifier(), inputs, tuple(attributes), len(node.outputs)
