"""What makes the input of linear layers, where it can take factors of the channels in, exactly.

    norm         (x / rms(x)) * g, or a layer norm with bias b    g / s, b / s
    projection   x W^T + b, or a piece of a packed one            its rows of W and b over s
    product      act(..) * projection: a gated MLP                one side of it
    attention    softmax(..) projection: averages of values       values; heads of a group share s

Everything else is refused by name, and so is what somebody else reads as well.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.linear import Linear, linear_of
from lepton_passes.match import NORMS, bias_of, input_at, ints_of, made_by, norm_axis_is_last

__all__ = ["Maker", "Place", "is_shared", "maker_of"]

_ATTENTION = ("Attention", "CachedAttention", "MarkedAttention")
_VALUE = 2


@dataclass(frozen=True)
class Place:
    """A constant whose rows are divided: input ``index`` of ``node``, from row ``start`` on."""

    node: ir.Node
    index: int
    start: int = 0


@dataclass(frozen=True)
class Maker:
    """Where factors go.

    Attributes:
        places: constants that are divided by the factors.
        width: how many factors there are.
        heads: of queries and of values, where channels are those of heads that share values.
    """

    places: tuple[Place, ...]
    width: int
    heads: tuple[int, int] = (1, 1)

    @property
    def columns(self) -> int:
        """How many channels the input has."""
        return self.width * self.heads[0] // self.heads[1]

    def spread(self, factors: np.ndarray) -> np.ndarray:
        """The factor of each channel of the input."""
        queries, values = self.heads
        return np.repeat(factors.reshape(values, -1), queries // values, axis=0).reshape(-1)

    def gathered(self, energy: np.ndarray) -> np.ndarray:
        """Mean of the channels that share a factor."""
        queries, values = self.heads
        grouped = energy.reshape(values, queries // values, -1)
        return np.asarray(grouped.mean(axis=1).reshape(-1))


def maker_of(body: Body, x: ir.Value, readers: Collection[ir.Node]) -> Maker | str:
    """What takes factors of the channels of ``x`` in, or why nothing does.

    Args:
        readers: the linear layers that read ``x``, whose weights make up for the factors.
    """
    reason = _other_reader(x, readers)
    if reason is not None:
        return reason
    kept = made_by(x, "KeepLast", domain=DIALECT)
    if kept is not None and kept.inputs[0] is not None:
        return maker_of(body, kept.inputs[0], [kept])
    if (norm := made_by(x, *NORMS)) is not None:
        return _norm(body, norm)
    if (product := made_by(x, "Mul")) is not None:
        return _product(body, product)
    if (attention := made_by(x, *_ATTENTION, domain=DIALECT)) is not None:
        return _attention(body, attention)
    return _projection(body, x)


def is_shared(body: Body, linear: Linear) -> bool:
    """Whether the weight of a layer is that of another one, too, or a table."""
    weight, turned = linear.weight.values[0], made_by(linear.node.inputs[1], "Transpose")
    if turned is None or len(weight.uses()) > 1 or len(turned.outputs[0].uses()) > 1:
        return True
    outer = (body.arguments(weight) or []) if body.function is not None else []
    return any(use.node not in body.calls for value in outer for use in value.uses())


def _other_reader(value: ir.Value, readers: Collection[ir.Node]) -> str | None:
    """Who reads a value beside ``readers``, each of which reads it once, as a reason."""
    if value.is_graph_output():
        return "what it reads is an output, too"
    rest = list(readers)
    for use in value.uses():
        if use.node not in rest:
            return f"what it reads is read by {use.node.op_type}, too"
        rest.remove(use.node)
    return None


def _norm(body: Body, norm: ir.Node) -> Maker | str:
    vectors = [value for value in norm.inputs[1:] if value is not None]
    shapes = [[list(t.shape.numpy()) for t in body.weights(value) or []] for value in vectors]
    width = shapes[0][0] if shapes and shapes[0] else []
    if not norm_axis_is_last(norm) or len(width) != 1:
        return f"{norm.op_type} makes its input, without one scale for each channel"
    if any(each != width for of_calls in shapes for each in of_calls or [[]]):
        return f"{norm.op_type} makes its input, without one bias for each channel"
    places = [Place(norm, i) for i, value in enumerate(norm.inputs) if i and value is not None]
    return Maker(tuple(places), int(width[0]))


def _product(body: Body, product: ir.Node) -> Maker | str:
    """Either side does; where both could, the second, the usual place of what is not activated."""
    for value in reversed(product.inputs):
        made = maker_of(body, value, [product]) if value is not None else None
        if isinstance(made, Maker):
            return made
    return "Mul makes its input, and neither side of it takes factors"


def _attention(body: Body, attention: ir.Node) -> Maker | str:
    value = attention.inputs[_VALUE]
    made = maker_of(body, value, [attention]) if value is not None else None
    if not isinstance(made, Maker) or made.heads != (1, 1):
        return f"{attention.op_type} makes its input, of values that take no factors"
    heads = tuple(attention.attributes.get_int(f"{kind}_num_heads", 0) for kind in ("q", "kv"))
    if min(heads) < 1 or made.width % heads[1]:
        return f"{attention.op_type} makes its input, of heads that are not counted"
    return replace(made, heads=(heads[0], heads[1]))


def _projection(body: Body, y: ir.Value) -> Maker | str:
    """A linear layer, with or without a bias, or a piece of one."""
    start, width, whole = _piece(body, y)
    added = made_by(whole, "Add")
    products = added.inputs if added is not None else [whole]
    makers = [p.producer() for p in products if p is not None]
    found = [linear_of(body, maker) for maker in makers if maker is not None]
    linear = next((each for each in found if each is not None), None)
    node = y.producer()
    if linear is None:
        return f"{node.op_type} makes its input" if node is not None else "its input comes as it is"
    biased = bias_of(body, linear.y, linear.weight.rows)
    if added is not None and (biased is None or biased[0] is not whole):
        return "Add makes its input"
    if (reason := _not_alone(body, linear, y, whole)) is not None:
        return reason
    turned = made_by(linear.node.inputs[1], "Transpose")
    assert turned is not None
    places = [Place(turned, 0, start)]
    if added is not None and biased is not None:
        places.append(Place(added, list(added.inputs).index(biased[1]), start))
    return Maker(tuple(places), width or linear.weight.rows)


def _piece(body: Body, y: ir.Value) -> tuple[int, int | None, ir.Value]:
    """First row, number of rows and the whole of what a Split along the last axis made."""
    split = made_by(y, "Split")
    if split is None or split.inputs[0] is None:
        return 0, None, y
    sizes = ints_of(body, input_at(split, 1))
    if sizes is None or split.attributes.get_int("axis", 0) not in (-1, 2):
        return 0, None, y
    place = list(split.outputs).index(y)
    return sum(sizes[:place]), sizes[place], split.inputs[0]


def _not_alone(body: Body, linear: Linear, y: ir.Value, whole: ir.Value) -> str | None:
    """Why the rows of a weight are not those of this layer alone."""
    if not linear.weight.plain:
        return "the layer in front of it is rounded already"
    if is_shared(body, linear):
        return "the weight of the layer in front of it is read by something else, too"
    split = y.producer() if whole is not y else None
    if split is not None and _other_reader(whole, [split]) is not None:
        return "the layer in front of it is read by something else, too"
    return None
