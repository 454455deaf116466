"""Questions that patterns ask of a graph: who made this, who reads it, how wide is it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lepton_passes.body import DIALECT, Body

__all__ = [
    "BLOCK",
    "KEYS_AND_VALUES",
    "NORMS",
    "PAST",
    "PRESENT",
    "SEQUENCE_MAJOR",
    "bias_of",
    "has_blocks",
    "heads_of",
    "in_integers",
    "input_at",
    "ints_of",
    "is_decoder",
    "is_op",
    "keeps_two",
    "largest_block",
    "made_by",
    "norm_axis_is_last",
    "only_reader",
    "perm_of",
    "rank_of",
    "readers",
    "reads_another_cache",
    "scalar_of",
    "sizes_of",
    "split_of",
    "vector_of",
    "width_of",
]

NORMS = ("RMSNormalization", "LayerNormalization")
BLOCK = 64
"""Weights that share a scale in 8 bits, where kernels round activations by the same blocks."""
SEQUENCE_MAJOR = (0, 2, 1, 3)
"""The permutation between (batch, heads, sequence, width) and (batch, sequence, heads, width)."""

_ATTENTION = ("Attention", "CachedAttention", "MarkedAttention", "SharedAttention")
_SAME_SIZE = ("Cast", "Identity", "Gelu", "Relu", "Sigmoid", "Tanh", "DequantizeLinear", *NORMS)
_SAME_RANK = ("Split", "Slice", "Cast", "Identity", "Transpose", "Gelu", *NORMS)
# Values that rank_of looks back at most.
_FAR = 32


def is_op(node: ir.Node, *op_types: str, domain: str = "") -> bool:
    """Whether a node is one of the given types: other domains may have their names."""
    return node.op_type in op_types and node.domain == domain


def made_by(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """The node that makes ``value``, if it is one of the given types."""
    node = value.producer() if value is not None else None
    return node if node is not None and is_op(node, *op_types, domain=domain) else None


def input_at(node: ir.Node, place: int) -> ir.Value | None:
    """An input, where the node has so many and does not leave it out."""
    return node.inputs[place] if len(node.inputs) > place else None


def readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read ``value``, without those in branches and loops: nothing of theirs can
    stand where ``value`` does."""
    return [node for node in value.consumers() if node.graph is value.graph]


def only_reader(value: ir.Value, *op_types: str) -> ir.Node | None:
    """The node that reads ``value``, if there is exactly one, in the same graph, and it is no
    output of the body; of the given types when any are given."""
    uses, found = tuple(value.uses()), readers(value)
    if len(uses) != 1 or not found or value.is_graph_output():
        return None
    return found[0] if not op_types or is_op(found[0], *op_types) else None


def reads_another_cache(node: ir.Node) -> bool:
    """Whether a GroupQueryAttention has no keys of its own: it gives no cache then."""
    return len(node.outputs) == 1


def bias_of(body: Body, y: ir.Value, rows: int) -> tuple[ir.Value, ir.Value] | None:
    """(sum, bias) when the only reader of ``y`` adds a constant vector of ``rows`` numbers."""
    add = only_reader(y, "Add")
    if add is None:
        return None
    bias = add.inputs[1] if add.inputs[0] is y else add.inputs[0]
    # Another length is broadcast, or broadcasts the product.
    if bias is None or vector_of(body, bias) != rows:
        return None
    return add.outputs[0], bias


def vector_of(body: Body, value: ir.Value | None) -> int | None:
    """How many numbers a weight has, where it is a vector in each call."""
    shapes = {tuple(t.shape.numpy()) for t in body.weights(value) or ()}
    shape = shapes.pop() if len(shapes) == 1 else ()
    return int(shape[0]) if len(shape) == 1 else None


def in_integers(node: ir.Node) -> bool:
    """Whether all that a node reads beside constants is dequantized, and more than a weight:
    runtimes compute such a node in integers."""
    read = [value for value in node.inputs if value is not None and not value.is_initializer()]
    return len(read) > 1 and all(made_by(value, "DequantizeLinear") for value in read)


def perm_of(node: ir.Node | None) -> tuple[int, ...] | None:
    """Permutation of a Transpose."""
    if node is None or node.op_type != "Transpose" or node.domain:
        return None
    if "perm" not in node.attributes:
        return None
    return tuple(node.attributes["perm"].as_ints())


def ints_of(body: Body, value: ir.Value | None) -> list[int] | None:
    """A constant list of integers, such as the shape of a Reshape."""
    array = body.constant(value)
    if array is None or array.dtype.kind != "i":
        return None
    return [int(i) for i in array.reshape(-1)]


def split_of(body: Body, values: Sequence[ir.Value | None]) -> tuple[ir.Value, list[int]] | None:
    """What a Split along the last of three axes makes exactly these values of, and their sizes."""
    split = made_by(values[0], "Split")
    if split is None or list(split.outputs) != list(values) or split.inputs[0] is None:
        return None
    sizes = ints_of(body, input_at(split, 1))
    if split.attributes.get_int("axis", 0) not in (-1, 2) or sizes is None:
        return None
    return split.inputs[0], sizes


def scalar_of(body: Body, value: ir.Value | None) -> float | None:
    """A constant with one element."""
    array = body.constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def norm_axis_is_last(node: ir.Node) -> bool:
    """Whether a norm runs over the last axis, and nothing but that."""
    return node.attributes.get_int("axis", -1) == -1


def rank_of(body: Body, value: ir.Value | None) -> int | None:
    """Number of axes, from the shape where known, else from the ops that lead to it."""
    return _rank(body, value, {}, _FAR)


def _rank(
    body: Body, value: ir.Value | None, known: dict[ir.Value, int | None], depth: int
) -> int | None:
    if value is None or depth == 0:
        return None
    if value.shape is not None:
        return len(value.shape)
    if value not in known:
        known[value] = None
        node = value.producer()
        if node is None:
            known[value] = _rank_of_arguments(body, value)
        elif node.domain == DIALECT and node.op_type in _ATTENTION:
            known[value] = 3 if value is node.outputs[0] else 4
        elif not node.domain:
            known[value] = _rank_made(body, node, known, depth)
    return known[value]


def _rank_of_arguments(body: Body, value: ir.Value) -> int | None:
    arguments = body.arguments(value)
    if arguments is None or arguments == [value]:
        return None
    ranks = {len(v.shape) if v.shape is not None else None for v in arguments}
    return ranks.pop() if len(ranks) == 1 else None


def _rank_made(
    body: Body, node: ir.Node, known: dict[ir.Value, int | None], depth: int
) -> int | None:
    """Number of axes of what a standard node makes."""
    if node.op_type == "Reshape":
        shape = ints_of(body, node.inputs[1])
        return len(shape) if shape is not None else None
    if node.op_type == "RotaryEmbedding" and node.attributes.get_int("num_heads", 0) != 0:
        return 3
    if (perm := perm_of(node)) is not None:
        return len(perm)
    if node.op_type in _SAME_RANK:
        return _rank(body, node.inputs[0], known, depth - 1)
    if node.op_type not in ("Add", "Mul", "MatMul"):
        return None
    ranks = [_rank(body, each, known, depth - 1) for each in node.inputs]
    pair = [rank for rank in ranks if rank is not None]
    # A MatMul takes the axis of a vector away.
    if len(pair) < 2 or (node.op_type == "MatMul" and min(pair) < 2):
        return None
    return max(pair)


def sizes_of(body: Body, value: ir.Value | None, depth: int = 8) -> tuple[int | str, ...] | None:
    """Sizes of all axes, numbers or names, looking back at most ``depth`` nodes."""
    if value is None or depth == 0:
        return None
    if value.shape is not None:
        sizes = tuple(d if isinstance(d, int) else d.value for d in value.shape)
        return None if None in sizes else tuple(s for s in sizes if s is not None)
    node = value.producer()
    if node is None:
        arguments = body.arguments(value) or []
        found = {sizes_of(body, v, 1) for v in arguments if v is not value}
        return found.pop() if len(found) == 1 else None
    if node.domain:
        return None
    if node.op_type in ("Add", "Mul"):
        return _sizes_of_pair([sizes_of(body, v, depth - 1) for v in node.inputs])
    if node.op_type == "MatMul":
        left, right = (sizes_of(body, v, depth - 1) for v in node.inputs)
        return (*left[:-1], right[-1]) if left and right and len(right) == 2 else None
    if node.op_type == "Transpose" and perm_of(node) is not None:
        whole = sizes_of(body, node.inputs[0], depth - 1)
        return tuple(whole[i] for i in perm_of(node) or ()) if whole is not None else None
    if node.op_type in _SAME_SIZE:
        return sizes_of(body, node.inputs[0], depth - 1)
    return None


def _sizes_of_pair(pair: Sequence[tuple[int | str, ...] | None]) -> tuple[int | str, ...] | None:
    """Of a sum or product of equal sizes, or with a vector or a number."""
    known = [sizes for sizes in pair if sizes is not None]
    wide = max(known, key=len, default=())
    if len(known) < len(pair) or len(wide) < 2:
        return None
    narrow = ((), (1,), wide[-1:])
    return wide if all(sizes == wide or sizes in narrow for sizes in known) else None


def keeps_two(body: Body, reshape: ir.Node) -> bool:
    """Whether a Reshape leaves the first two axes as they are."""
    first = (ints_of(body, reshape.inputs[1]) or [])[:2]
    whole = sizes_of(body, reshape.inputs[0]) or ()
    copied = () if reshape.attributes.get_int("allowzero", 0) else (0,)
    kept = [size in (*copied, *whole[axis : axis + 1]) for axis, size in enumerate(first)]
    if kept == [True, True]:
        return True
    before, after = (sizes_of(body, value, 1) for value in (reshape.inputs[0], reshape.outputs[0]))
    return before is not None and after is not None and before[:2] == after[:2]


def width_of(value: ir.Value | None) -> int | None:
    """Size of the last axis, where the shape says so."""
    if value is None or value.shape is None or len(value.shape) == 0:
        return None
    last = value.shape[-1]
    return last if isinstance(last, int) else None


def heads_of(body: Body, value: ir.Value | None) -> tuple[int, int] | None:
    """(heads, width) of a value laid out (batch, sequence, heads, width)."""
    if value is None:
        return None
    if value.shape is not None and len(value.shape) == 4:
        heads, width = value.shape[2], value.shape[3]
        if isinstance(heads, int) and isinstance(width, int):
            return heads, width
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Reshape":
        shape = ints_of(body, node.inputs[1])
        return _positive_pair(shape) if shape is not None and len(shape) == 4 else None
    if node.op_type in NORMS:
        return heads_of(body, node.inputs[0])
    if node.op_type == "Split" and len(node.inputs) == 2:
        sizes, whole = ints_of(body, node.inputs[1]), heads_of(body, node.inputs[0])
        axis = node.attributes.get_int("axis", 0)
        if sizes is None or whole is None or axis not in (-2, -1, 2, 3):
            return None
        size = sizes[list(node.outputs).index(value)]
        return (whole[0], size) if axis in (-1, 3) else (size, whole[1])
    return None


def _positive_pair(shape: Sequence[int]) -> tuple[int, int] | None:
    return (shape[2], shape[3]) if shape[2] > 0 and shape[3] > 0 else None


def largest_block(columns: int, longest: int = BLOCK) -> int | None:
    """Block length for 8 bits: the largest power of two from ``longest`` down to 16 that fits.

    Kernels of onnxruntime round activations by block too: blocks of 128 cost Gemma 3 270M another
    percent of perplexity there; blocks of 64 decode as fast, blocks of 32 a quarter slower.
    """
    return next(
        (size for size in (128, 64, 32, 16) if size <= longest and columns % size == 0), None
    )


def has_blocks(columns: int, most: int = 256) -> bool:
    """Whether kernels of onnxruntime have blocks of so many columns: powers of two from 16 on, with
    zero points up to 256."""
    return 16 <= columns <= most and columns.bit_count() == 1


# What inputs that hold what came before are called.
KEYS_AND_VALUES = "past_key_values."
PAST = (KEYS_AND_VALUES, "past_conv.", "past_recurrent.")
# And what the outputs are called that go on from there.
PRESENT = ("present.", "present_conv.", "present_recurrent.")


def is_decoder(model: ir.Model) -> bool:
    """Whether the model goes on from keys and values, or states, of tokens before."""
    return any((value.name or "").startswith(PAST) for value in model.graph.inputs)
