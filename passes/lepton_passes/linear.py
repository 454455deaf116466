"""The linear layer of the neutral dialect, and its weight, plain or quantized.

y = MatMul(x, Transpose(W))                             W (N, K), fp32 or half precision
y = MatMul(x, Transpose(DequantizeLinear(q, scale)))    q (N, K), scale (N,) or (N, K / group)
y = MatMul(x, Transpose(DequantizeLinear(q, scale, zero)))    unsigned, zero (N, K / group)
y = MatMul(x, Transpose(Reshape(Add(Reshape(DequantizeLinear(q, scale)), offset))))
                                                              unsigned, offset (N, K / group, 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body, bodies
from lepton_passes.dtypes import HALVES
from lepton_passes.grouped import FloatCodes
from lepton_passes.match import is_op, made_by, perm_of, readers

__all__ = [
    "Linear",
    "Weight",
    "dequantized",
    "dequantizing",
    "linear_of",
    "linears",
    "linears_by_input",
    "lookups",
    "scale_type",
    "stored_precisions",
    "weight_of",
]

PLAIN = (ir.DataType.FLOAT, *HALVES)
QUANTIZED = (ir.DataType.INT4, ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN)
UNSIGNED = (ir.DataType.UINT4, ir.DataType.UINT8)  # with zero points or offsets, never without


@dataclass(frozen=True)
class Weight:
    """A constant matrix (rows, columns), by the values of its body that hold it.

    Attributes:
        values: ``(W,)`` plain, ``(q, scale)`` quantized, ``(q, scale, zero)`` with zero points,
            ``(q, scale, offset)`` with offsets.
        dtype: what it is stored in: FLOAT, FLOAT16 or BFLOAT16 where plain, else INT8, INT4 or
            FLOAT8E4M3FN, or UINT8 or UINT4 with zero points or offsets.
        group: columns that share a scale; ``None`` where a row has one.
        offsets: whether what it has for each group is an offset, ``w = q * scale + offset``, and no
            zero point.
        floats: whether the integers are twice floats of 4 bits, in each call of the body.
    """

    values: tuple[ir.Value, ...]
    rows: int
    columns: int
    dtype: ir.DataType
    group: int | None = None
    offsets: bool = False
    floats: bool = False

    @property
    def bits(self) -> int:
        """Bits of an element: 32, 16, 8 or 4."""
        return int(self.dtype.bitwidth)

    @property
    def plain(self) -> bool:
        """Whether it is stored as it is computed with."""
        return self.dtype in PLAIN

    @property
    def shifted(self) -> bool:
        """Whether it has a zero point or an offset for each group."""
        return len(self.values) > 2

    @property
    def zero(self) -> ir.Value | None:
        """Its zero points, one for each group, where it has any."""
        return self.values[2] if self.shifted and not self.offsets else None

    @property
    def kind(self) -> tuple[int, ir.DataType, int | None, bool]:
        """What two weights have in common when their rows can be stacked."""
        return self.columns, self.dtype, self.group, self.offsets

    @property
    def name(self) -> str:
        """Name of the parameter inside the body."""
        return (self.values[0].name or "").removesuffix("_q")


@dataclass(frozen=True)
class Linear:
    """One use of a weight: ``node`` is the MatMul."""

    node: ir.Node
    weight: Weight

    @property
    def x(self) -> ir.Value:
        """What it reads, also after a layer right in front of it was replaced."""
        x = self.node.inputs[0]
        assert x is not None
        return x

    @property
    def y(self) -> ir.Value:
        """The product, before a bias."""
        return self.node.outputs[0]


def weight_of(body: Body, value: ir.Value | None) -> Weight | None:
    """The weight behind ``value``: plain, or the output of a DequantizeLinear, with offsets or
    without."""
    node, offset = _dequantizing(body, value)
    values: Sequence[ir.Value | None] = (value,) if node is None else (*node.inputs, *offset)
    tensors = body.weights(values[0])
    if not tensors or any(len(t.shape) != 2 for t in tensors):
        return None
    rows, columns = (int(d) for d in tensors[0].shape.numpy())
    if node is None:
        if tensors[0].dtype not in PLAIN:
            return None
        return Weight((values[0],), rows, columns, tensors[0].dtype)  # type: ignore[arg-type]
    if tensors[0].dtype not in (QUANTIZED if len(values) == 2 else UNSIGNED) or len(values) > 3:
        return None
    group = node.attributes.get_int("block_size", 0) or None
    if node.attributes.get_int("axis", 1) != (0 if group is None else 1):
        return None
    if group is None and len(values) == 3:
        return None
    shape = (rows,) if group is None else (rows, columns // group)
    # One scale for all has another shape; so has a last group that is not whole.
    if not all(_has(body, each, shape) for each in node.inputs[1:]) or columns % (group or 1):
        return None
    if "output_dtype" in node.attributes:
        return None
    floats = group is not None and all(isinstance(each, FloatCodes) for each in tensors)
    return Weight(tuple(values), rows, columns, tensors[0].dtype, group, bool(offset), floats)  # type: ignore[arg-type]


def _has(body: Body, value: ir.Value | None, shape: tuple[int, ...]) -> bool:
    """Whether it is a weight of this shape."""
    tensors = body.weights(value)
    return bool(tensors) and all(tuple(t.shape.numpy()) == shape for t in tensors or ())


def _dequantizing(
    body: Body, value: ir.Value | None
) -> tuple[ir.Node | None, tuple[ir.Value | None, ...]]:
    """The DequantizeLinear behind ``value``, and the offsets that are added to what it gives."""
    whole = made_by(value, "Reshape")
    added = made_by(whole.inputs[0], "Add") if whole is not None else None
    apart = made_by(added.inputs[0], "Reshape") if added is not None else None
    if added is None or apart is None:
        return made_by(value, "DequantizeLinear"), ()
    node, tensors = made_by(apart.inputs[0], "DequantizeLinear"), body.weights(added.inputs[1])
    # Whose shape says that these are groups.
    scale = body.weights(node.inputs[1]) if node is not None else None
    groups = (*scale[0].shape.numpy(), 1) if scale else None
    if not tensors or groups != tensors[0].shape.numpy():
        return None, ()
    return node, (added.inputs[1],)


def scale_type(body: Body, weight: Weight) -> ir.DataType | None:
    """What a quantized weight is computed with, and so all that its layer reads and makes."""
    tensors = body.weights(weight.values[1])
    return tensors[0].dtype if tensors else None


def linear_of(body: Body, node: ir.Node) -> Linear | None:
    """The linear layer whose product is ``node``; ``None`` for a MatMul of two activations."""
    turned = made_by(node.inputs[1], "Transpose") if is_op(node, "MatMul") else None
    if turned is None or perm_of(turned) != (1, 0) or node.inputs[0] is None:
        return None
    weight = weight_of(body, turned.inputs[0])
    return Linear(node, weight) if weight is not None else None


def linears(body: Body) -> list[Linear]:
    """All linear layers of a body, in order."""
    found = (linear_of(body, node) for node in body.nodes("MatMul"))
    return [linear for linear in found if linear is not None]


def linears_by_input(body: Body) -> dict[ir.Value, list[Linear]]:
    """The linear layers of a body by what they read, in order."""
    found: dict[ir.Value, list[Linear]] = {}
    for linear in linears(body):
        found.setdefault(linear.x, []).append(linear)
    return found


def dequantizing(group: int | None) -> dict[str, int | float | str | Sequence[int]]:
    """Attributes of the DequantizeLinear of a weight whose groups have so many columns; ``None``
    where a row has one scale."""
    return {"axis": 0} if group is None else {"axis": 1, "block_size": group}


def dequantized(
    body: Body,
    before: ir.Node,
    values: Sequence[ir.Value],
    group: int | None,
    shape: tuple[int, int],
    *,
    offsets: bool = False,
) -> ir.Value:
    """The weight (rows, columns) in front of ``before`` that ``values`` are, in the form in which
    :func:`weight_of` finds them."""
    integers, added = (values[:2], values[2:]) if offsets else (values, ())
    value = body.emit(before, "DequantizeLinear", integers, dequantizing(group)).outputs[0]
    for offset in added:
        assert group is not None
        apart = body.constant_node(before, np.array([shape[0], -1, group]))
        whole = body.constant_node(before, np.array(shape))
        value = body.emit(before, "Reshape", [value, apart]).outputs[0]
        value = body.emit(before, "Add", [value, offset]).outputs[0]
        value = body.emit(before, "Reshape", [value, whole]).outputs[0]
    return value


def lookups(weight: Weight) -> list[ir.Node]:
    """The Gathers that read a quantized weight as an embedding table."""
    found = (readers(reader.outputs[0]) for reader in readers(weight.values[0]))
    return [node for nodes in found for node in nodes if is_op(node, "Gather")]


def stored_precisions(model: ir.Model) -> set[str]:
    """Precisions of the weights that are dequantized in a graph: int4, int8."""
    read = [(b, n.inputs[0]) for b in bodies(model) for n in b.nodes("DequantizeLinear")]
    bits = {tensor.dtype.bitwidth for body, value in read for tensor in body.weights(value) or ()}
    return {"int4" if each <= 4 else "int8" for each in bits if each <= 8}
