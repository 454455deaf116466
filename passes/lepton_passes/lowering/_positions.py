"""Which inputs of a node have positions, where its output does, and whether it keeps them apart.

Positions are the second axis of (batch, sequence, width), or of (batch, sequence, heads, width), or
the rows of (batch * sequence, ..), where a model has laid its tokens one behind the other: mixtures
of experts do, and OPT.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import onnx_ir as ir

from lepton_passes.body import DIALECT, MICROSOFT, Body
from lepton_passes.match import NORMS, input_at, ints_of, made_by, only_reader, rank_of
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["Form", "positions", "rank"]

UNKNOWN = "it is not known to keep positions apart"
_SIZES = "its sizes are not known"


class Form(IntEnum):
    """How a value is laid out: the number is the axis of its positions."""

    ROWS = 0
    SEQUENCE = 1


Found = Mapping[int, Form]

# fmt: off
_POINTWISE = frozenset({
    "Abs", "Add", "And", "Cast", "Clip", "Div", "Equal", "Erf", "Exp", "Gelu", "Greater",
    "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not",
    "Or", "Pow", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh", "Where",
})
_REDUCING = frozenset({"ReduceMax", "ReduceMean", "ReduceSum"})
# fmt: on
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
# Op -> inputs that have positions, the first ones (0: all), and the axis where none is given.
_ALONG = {
    "Concat": (0, 0),
    **dict.fromkeys(("LogSoftmax", "Softmax", "TopK", *NORMS), (1, -1)),
    "Split": (1, 0),
    "GatherElements": (2, 0),
    "ScatterElements": (3, 0),
}
# What works along the last axis.
_LAST = {
    (CPU_DOMAIN, "Normalization"): 1,
    (CPU_DOMAIN, "SkipNormalization"): 2,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): 2,
    (MICROSOFT, "SkipLayerNormalization"): 2,
    (MICROSOFT, "QuickGelu"): 1,
    (MICROSOFT, "FastGelu"): 1,
}
_CHOSEN = 3  # inputs of Experts that have rows: tokens, indices, shares


def positions(body: Body, node: ir.Node, out: ir.Value, form: Form) -> Found | str:
    """Inputs that have positions, and how they are laid out; or why positions are not kept apart.

    Args:
        out: output of ``node`` that is laid out as ``form``.
    """
    op = node.op_type
    if form is Form.ROWS and not node.domain and op in ("Expand", "Shape"):
        return _repeated(body, node, out)
    axes = rank(body, out) or (3 if form is Form.SEQUENCE else None)
    if axes is None:
        return _SIZES
    if count := _LAST.get((node.domain, op)):
        return _first(body, node, count, axes, form)
    if (node.domain, op) == (DIALECT, "Experts"):
        return _first(body, node, _CHOSEN, axes, form) if form is Form.ROWS else UNKNOWN
    if node.domain:
        return UNKNOWN
    if op in _POINTWISE:
        return _pointwise(body, node, axes, form)
    if op == "MatMul":
        plain = rank(body, node.inputs[1]) == 2
        return _first(body, node, 1, axes, form) if plain else "it multiplies by no single matrix"
    if op in _ROUNDING:
        one = all(rank(body, value) == 0 for value in node.inputs[1:])
        return _first(body, node, 1, axes, form) if one else "it has more than one scale"
    if op in _ALONG or _takes_columns(body, node):
        return _along(body, node, axes, form)
    if op in _REDUCING:
        return _reduced(body, node, axes, form)
    if op == "Slice":
        return _sliced(body, node, axes, form)
    if op == "RotaryEmbedding":
        return _turned(body, node, axes, form)
    if op == "Reshape":
        return _reshaped(body, node, out, form)
    return _of_rows(body, node, axes) if form is Form.ROWS else UNKNOWN


def rank(body: Body, value: ir.Value | None) -> int | None:
    """Number of axes, also behind kernels that ``rank_of`` does not know."""
    node = value.producer() if value is not None else None
    if value is None or value.shape is not None or node is None:
        return rank_of(body, value)
    if node.domain not in ("", MICROSOFT, CPU_DOMAIN):
        return rank_of(body, value)
    if node.op_type == "GroupQueryAttention":
        return 3 if value is node.outputs[0] else 4
    if node.op_type == "Constant":
        array = body.constant(value)
        return None if array is None else array.ndim
    if (like := _like(node)) is not None:
        return rank(body, like)
    if node.op_type in _REDUCING:
        return _reduced_rank(body, node)
    count = _LAST.get((node.domain, node.op_type))
    if count is None and not node.domain:
        one = node.op_type in ("MatMul", "Slice", "Transpose", *_ROUNDING, *_ALONG)
        one = one or _takes_columns(body, node)
        count = 1 if one else len(node.inputs) if node.op_type in _POINTWISE else None
    if count is None:
        return rank_of(body, value)
    ranks = [rank(body, each) for each in node.inputs[:count]]
    return None if None in ranks else max(each for each in ranks if each is not None)


def _first(body: Body, node: ir.Node, count: int, axes: int, form: Form) -> Found | str:
    """The first inputs have positions, with as many axes as the output. Of the others there is one
    for all of them."""
    if any(rank(body, value) != axes for value in node.inputs[:count]):
        return _SIZES
    if any(body.weights(value) is not None for value in node.inputs[:count]):
        return "a constant has positions of its own"
    return dict.fromkeys(range(count), form)


def _pointwise(body: Body, node: ir.Node, axes: int, form: Form) -> Found | str:
    """What has fewer axes is the same for all positions, unless it reaches theirs."""
    found = {}
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        own = rank(body, value)
        if own is None or (own != axes and own >= axes - form):
            return _SIZES
        if own < axes or _is_one(body, value, form):
            continue
        if body.weights(value) is not None or made_by(value, "Constant") is not None:
            return "a constant has positions of its own"
        found[index] = form
    return found or UNKNOWN


def _is_one(body: Body, value: ir.Value, form: Form) -> bool:
    """Whether a value is the same for all positions, though it has an axis for them."""
    if value.shape is not None:
        return value.shape[form] == 1
    array = body.constant(value)
    return array is not None and array.shape[form] == 1


def _along(body: Body, node: ir.Node, axes: int, form: Form) -> Found | str:
    count, default = _ALONG.get(node.op_type, (1, 0))
    axis = node.attributes.get_int("axis", default)
    if axis % axes <= form:
        return "it works along the axis of the positions"
    return _first(body, node, count or len(node.inputs), axes, form)


def _takes_columns(body: Body, node: ir.Node) -> bool:
    """Whether it is columns in another order, or some of them: not rows that are looked up."""
    known = node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0
    return known and rank(body, node.inputs[1]) == 1


def _reduced(body: Body, node: ir.Node, axes: int, form: Form) -> Found | str:
    along = ints_of(body, input_at(node, 1))
    own = rank(body, node.inputs[0])
    if not along or own is None:
        return _SIZES
    if any(axis % own <= form for axis in along):
        return "it works along the axis of the positions"
    return {0: form} if form is Form.ROWS or own == axes else _SIZES


def _reduced_rank(body: Body, node: ir.Node) -> int | None:
    own = rank(body, node.inputs[0])
    if node.attributes.get_int("keepdims", 1):
        return own
    along = ints_of(body, input_at(node, 1))
    return own - len(along) if own is not None and along else None


def _reshaped(body: Body, node: ir.Node, out: ir.Value, form: Form) -> Found | str:
    """Rows of a sequence, a sequence of rows, or rows whose columns are laid out anew."""
    source = node.inputs[0]
    shape = ints_of(body, node.inputs[1])
    if form is Form.SEQUENCE and shape and shape[:2] == [0, 0]:  # heads, or one behind the other
        return {0: form} if rank(body, source) in (3, 4) else UNKNOWN
    if source is None or source.shape is None or out.shape is None:
        return _SIZES
    old, new = list(source.shape), list(out.shape)
    if form is Form.SEQUENCE:
        rows = len(old) == 2 and len(new) == 3 and isinstance(new[2], int) and old[1] == new[2]
        return {0: Form.ROWS} if rows else UNKNOWN
    if not shape or shape[0] not in (0, -1) or min(shape[1:], default=1) < 1:
        return UNKNOWN
    if all(isinstance(size, int) for size in old[1:]):
        same = _product(old[1:]) == _product(shape[1:])
        return {0: Form.ROWS} if same else UNKNOWN
    flat = len(old) == 3 and shape == [-1, old[2]]
    return {0: Form.SEQUENCE} if flat else UNKNOWN


def _sliced(body: Body, node: ir.Node, axes: int, form: Form) -> Found | str:
    """Some of the columns of each position."""
    along = ints_of(body, input_at(node, 3))
    if not along or any(axis % axes <= form for axis in along):
        return "it works along the axis of the positions" if along else UNKNOWN
    return _first(body, node, 1, axes, form)


def _turned(body: Body, node: ir.Node, axes: int, form: Form) -> Found | str:
    """Heads side by side, with the angles of each position."""
    by_number = input_at(node, 3) is not None
    if form is Form.ROWS or by_number:
        return UNKNOWN
    return _first(body, node, 3, axes, form)


def _of_rows(body: Body, node: ir.Node, axes: int) -> Found | str:
    """What is told of one row alone: numbers looked up in a vector, and an axis of one behind."""
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
        looked_up = body.weights(node.inputs[0]) and rank(body, node.inputs[0]) == 1
        return {1: Form.ROWS} if looked_up and rank(body, node.inputs[1]) == axes else UNKNOWN
    if node.op_type == "Unsqueeze":
        along = ints_of(body, node.inputs[1])
        return {0: Form.ROWS} if along and all(axis % axes for axis in along) else UNKNOWN
    return UNKNOWN


def _repeated(body: Body, node: ir.Node, out: ir.Value) -> Found | str:
    """Rows repeated along other axes; one number in as many rows as something has: it is then asked
    for the sizes of that, or for rows of it by the one node that reads them."""
    if node.op_type == "Shape":
        return UNKNOWN if node.attributes else {0: Form.ROWS}
    one = rank(body, node.inputs[0]) == 0
    if one and _like(node) is not None:
        return {1: Form.ROWS}
    if out.shape is None or not all(isinstance(size, int) for size in list(out.shape)[1:]):
        return _SIZES
    if not one:
        same = rank(body, node.inputs[0]) == len(out.shape)
        return {0: Form.ROWS} if same else UNKNOWN
    reader = only_reader(out, "ScatterElements")
    if reader is None or reader.inputs[0] is not out:
        return UNKNOWN
    return {}


def _like(node: ir.Node) -> ir.Value | None:
    """What a number is repeated for as often as it has elements."""
    shape = made_by(node.inputs[1], "Shape") if node.op_type == "Expand" else None
    return shape.inputs[0] if shape is not None and not shape.attributes else None


def _product(sizes: list[int | ir.SymbolicDim] | list[int]) -> int:
    product = 1
    for size in sizes:
        assert isinstance(size, int)
        product *= size
    return product
