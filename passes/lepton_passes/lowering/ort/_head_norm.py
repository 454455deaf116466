"""What the passes share that take RMS norms of heads into an attention kernel.

    Before   q, k, v = Split(qkv)
             GroupQueryAttention(Reshape(Norm(Reshape(q))), Reshape(Norm(Reshape(k))), v, ..)
    After    GroupQueryAttention(qkv, , , .., query_norm, key_norm)

The kernels go over each head anyway, to turn it. A layer has 5 nodes less in each step, and a
prompt's queries and keys are not copied (Gemma 3, Qwen3). Where a layer has no keys of its own, its
queries alone have a norm (Gemma 4 E2B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import made_by, only_reader, rank_of, reads_another_cache, split_of

__all__ = ["HeadNorm"]


@dataclass(frozen=True)
class _Normed:
    """A projection, and the norm of its heads."""

    x: ir.Value
    norm: ir.Node

    @property
    def epsilon(self) -> float:
        return self.norm.attributes.get_float("epsilon", 1e-5)


class HeadNorm(LeptonPass):
    """Take norms of heads into an attention kernel.

    Attributes:
        domain: of the kernel.
        norms: type and domain of the norms that it can take.
        places: of the weights of both norms among its inputs.
        epsilon: name of its attribute.
        most: the widest head that it norms.
        alone: it norms queries alone, too, where there are no keys.
    """

    changes_numbers = True
    domain: ClassVar[str]
    norms: ClassVar[tuple[str, str]]
    places: ClassVar[tuple[int, int]]
    epsilon: ClassVar[str]
    most: ClassVar[int]
    alone: ClassVar[bool]

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("GroupQueryAttention", domain=self.domain):
            if node.inputs[1] is None or (reads_another_cache(node) and not self.alone):
                continue
            query, key = (self._normed(value) for value in node.inputs[:2])
            if query is None and key is None:
                continue
            reason = self._refuses(body, node, query, key)
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            assert query is not None
            self._take(body, node, query, key)

    def differs(self, norm: ir.Node) -> str | None:
        """Why the kernel cannot do what this norm does."""
        raise NotImplementedError

    def _take(self, body: Body, node: ir.Node, query: _Normed, key: _Normed | None) -> None:
        keys, values = node.inputs[1:3]
        assert keys is not None
        assert values is not None
        three = (query.x, keys if key is None else key.x, values)
        packed = _packed(body, three)
        inputs = [*(three if packed is None else (packed, None, None)), *node.inputs[3:]]
        first, end = self.places[0], self.places[0] + 2
        inputs += [None] * (first - len(inputs))
        weights = [each.norm.inputs[1] if each is not None else None for each in (query, key)]
        inputs[first:end] = weights  # a bias may stand behind
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        attributes[self.epsilon] = query.epsilon
        count = len(node.outputs)
        new = body.emit(node, node.op_type, inputs, attributes, domain=self.domain, outputs=count)
        body.replace_all(node.outputs, new.outputs)
        self.fire(body)

    def _normed(self, value: ir.Value | None) -> _Normed | None:
        """The norm behind ``value``, through the reshapes around it that part and join heads."""
        reshape = made_by(value, "Reshape")
        inner = reshape.inputs[0] if reshape is not None else value
        op_type, domain = self.norms
        norm = made_by(inner, op_type, domain=domain)
        if norm is None:
            return None
        x = norm.inputs[0]
        before = made_by(x, "Reshape")
        if before is not None:
            x = before.inputs[0]
        return _Normed(x, norm) if x is not None else None

    def _refuses(
        self, body: Body, node: ir.Node, query: _Normed | None, key: _Normed | None
    ) -> str | None:
        if query is None or (key is None and not reads_another_cache(node)):
            return "one of query and key has a norm, the other has none"
        if key is not None and query.epsilon != key.epsilon:
            return "the norms of query and key have different epsilons"
        first = self.places[0]
        if any(value is not None for value in node.inputs[first : first + 2]):
            return "it has norms of heads already"
        width = _width(node)
        if width is None or width > self.most:
            return f"heads of {width} are wider than {self.most}"
        for each in (query,) if key is None else (query, key):
            if (reason := self.differs(each.norm)) is not None:
                return reason
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


def _packed(body: Body, three: tuple[ir.Value, ir.Value, ir.Value]) -> ir.Value | None:
    """What these three, which nothing else reads, are pieces of."""
    split = split_of(body, three)
    alone = all(only_reader(value) is not None for value in three)
    return split[0] if split is not None and alone else None
