"""Take RMS norms of heads into our own attention kernel, and the Split of a packed projection.

    Before   q, k, v = Split(qkv)
             GroupQueryAttention(Reshape(Norm(Reshape(q))), Reshape(Norm(Reshape(k))), v, ..)
    After    GroupQueryAttention(qkv, , , .., query_norm, key_norm)

The kernel goes over each head anyway, to turn it. A layer has 5 nodes less in each step, and a
prompt's queries and keys are not copied (Gemma 3, Qwen3).
Refuses: a norm of one of the two alone; norms of different epsilon; of a whole row (OLMo 2); with a
mean or a bias; read by others, too; of something else than a projection; heads of more than 1,024.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import made_by, only_reader, rank_of, split_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeHeadNorm"]

MOST = 1024
_QUERY_NORM, _KEY_NORM = 9, 10


@dataclass(frozen=True)
class _Normed:
    """A projection, and the norm of its heads."""

    x: ir.Value
    norm: ir.Node

    @property
    def epsilon(self) -> float:
        return self.norm.attributes.get_float("epsilon")


class LowerNativeHeadNorm(LeptonPass):
    """Take norms of heads into the attention kernel."""

    name = "lower-native-head-norm"
    summary = "Norms of heads into attention of our own"
    changes_numbers = True

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("GroupQueryAttention"):
            if node.domain != CPU_DOMAIN or node.inputs[1] is None:
                continue
            query, key = (_normed(value) for value in node.inputs[:2])
            if query is None and key is None:
                continue
            reason = _refuses(body, node, query, key)
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            assert query is not None
            assert key is not None
            self._take(body, node, query, key)

    def _take(self, body: Body, node: ir.Node, query: _Normed, key: _Normed) -> None:
        value = node.inputs[2]
        assert value is not None
        three = (query.x, key.x, value)
        packed = _packed(body, three)
        inputs = [*(three if packed is None else (packed, None, None)), *node.inputs[3:]]
        inputs += [None] * (_QUERY_NORM - len(inputs))
        inputs += [query.norm.inputs[1], key.norm.inputs[1]]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        attributes["epsilon"] = query.epsilon
        new = body.emit(node, node.op_type, inputs, attributes, domain=CPU_DOMAIN, outputs=3)
        for old, made in zip(node.outputs, new.outputs, strict=True):
            body.replace(old, made)
        self.fire(body)


def _normed(value: ir.Value | None) -> _Normed | None:
    """The norm behind ``value``, through the reshapes around it that part and join heads."""
    reshape = made_by(value, "Reshape")
    inner = reshape.inputs[0] if reshape is not None else value
    norm = made_by(inner, "Normalization", domain=CPU_DOMAIN)
    if norm is None:
        return None
    x = norm.inputs[0]
    before = made_by(x, "Reshape")
    if before is not None:
        x = before.inputs[0]
    return _Normed(x, norm) if x is not None else None


def _refuses(body: Body, node: ir.Node, query: _Normed | None, key: _Normed | None) -> str | None:
    if query is None or key is None:
        return "one of query and key has a norm, the other has none"
    if query.epsilon != key.epsilon:
        return "the norms of query and key have different epsilons"
    width = _width(node)
    if width is None or width > MOST:
        return f"heads of {width} are wider than {MOST}"
    for each in (query, key):
        if not each.norm.attributes.get_int("rms", 0) or _given(each.norm, 2) is not None:
            return "the norm takes a mean off, or has a bias"
        weights = body.weights(each.norm.inputs[1])
        if not weights or tuple(weights[0].shape) != (width,):
            return "the norm is not one of a head"
        if only_reader(each.norm.outputs[0]) is None:
            return "something else reads the norm, too"
        if rank_of(body, each.x) != 3:
            return "what is normed is no projection of (batch, sequence, heads * width)"
    return None


def _width(node: ir.Node) -> int | None:
    """Width of a head, from the cache."""
    past = node.inputs[3]
    width = past.shape[3] if past is not None and past.shape is not None else None
    return width if isinstance(width, int) else None


def _given(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _packed(body: Body, three: tuple[ir.Value, ir.Value, ir.Value]) -> ir.Value | None:
    """What these three, which nothing else reads, are pieces of."""
    split = split_of(body, three)
    alone = all(only_reader(value) is not None for value in three)
    return split[0] if split is not None and alone else None
