"""Weights that an ONNX file has quantized by themselves: DequantizeLinear in front of an op.

    MatMul(x, DequantizeLinear(W))        W (in, out)    read as linear layers are: (out, in), by a
                                                         Transpose, integers and scales as they are
    Conv(x, DequantizeLinear(W)), others                 what the integers stand for, in floats
    MatMul(DequantizeLinear(x), DequantizeLinear(W))     left alone: runtimes have kernels for both
                                                         sides in integers of 8 bits, with one scale
                                                         or one for each result; else as above

Without this a whole weight would be dequantized in each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body, sweep
from lepton_passes.linear import dequantizing, weight_of
from lepton_passes.match import in_integers, is_op, readers
from lepton_passes.tensors import StreamedTensor, rows_of, transposed

__all__ = ["own_weights"]

VECTOR = 2  # axes from which on it is more than a vector
BYTE = 8


@dataclass(frozen=True)
class _Stored:
    """A weight, as a DequantizeLinear has it; ``axis`` None where all of it has one scale, ``zero``
    where all zero points are 0."""

    codes: ir.TensorProtocol
    scale: np.ndarray
    zero: np.ndarray | None
    axis: int | None
    block: int

    def spread(self, numbers: np.ndarray) -> np.ndarray:
        """Scales, or zero points, against the axes of the codes."""
        if self.axis is None:
            return numbers.reshape(())
        if self.block:
            size = self.codes.shape.numpy()[self.axis]
            whole = np.repeat(numbers, self.block, axis=self.axis)
            return whole.take(np.arange(size), axis=self.axis)
        return numbers.reshape([-1 if n == self.axis else 1 for n in range(len(self.codes.shape))])

    def values(self, name: str) -> StreamedTensor:
        """What the codes stand for, of the type of the scales."""
        scale = self.spread(self.scale)
        zero = None if self.zero is None else self.spread(self.zero.astype(np.float32))

        def part(numbers: np.ndarray, start: int, stop: int) -> np.ndarray:
            return numbers[start:stop] if numbers.ndim and numbers.shape[0] > 1 else numbers

        def read(start: int, stop: int) -> np.ndarray:
            rows = rows_of(self.codes, start, stop).astype(np.float32)
            rows = rows if zero is None else rows - part(zero, start, stop)
            made: np.ndarray = (rows * part(scale, start, stop)).astype(self.scale.dtype)
            return made

        dtype = ir.DataType.from_numpy(self.scale.dtype)
        return StreamedTensor(name, dtype, self.codes.shape.numpy(), read)


def own_weights(model: ir.Model) -> None:
    """Have linear layers read quantized weights as ours do, and other ops what they stand for."""
    main = Body(model)
    for node in main.nodes("DequantizeLinear"):
        stored = _stored(main, node)
        if stored is None or _read_by_passes(main, node):
            continue
        for user in readers(node.outputs[0]):
            if not _by_integers(node, stored, user):
                _read_apart(main, node, stored, user)
    if any(map(_unread, main.nodes("DequantizeLinear"))):
        sweep(model)


def _unread(node: ir.Node) -> bool:
    return not node.outputs[0].uses() and not node.outputs[0].is_graph_output()


def _stored(body: Body, node: ir.Node) -> _Stored | None:
    """The weight that a node dequantizes; None where it is something else, or fits no scales."""
    tensors = [body.weights(value) if value is not None else None for value in node.inputs]
    codes, scale, *zero = [found[0] if found else None for found in tensors]
    if codes is None or scale is None or len(codes.shape) < VECTOR or (zero and zero[0] is None):
        return None
    if "output_dtype" in node.attributes or node.outputs[0].is_graph_output():
        return None
    block, axis = node.attributes.get_int("block_size", 0), node.attributes.get_int("axis", 1)
    shape = codes.shape.numpy()
    if not -len(shape) <= axis < len(shape) or block < 0:
        return None
    axis %= len(shape)
    numbers = scale.numpy()
    groups = -(-shape[axis] // block) if block else shape[axis]
    of_blocks = tuple(groups if n == axis else size for n, size in enumerate(shape))
    if numbers.size == 1 and not block:
        wanted, found = numbers.shape, None
    else:
        wanted, found = of_blocks if block else (groups,), axis
    zeros = zero[0].numpy() if zero and zero[0] is not None else None
    if numbers.shape != wanted or (zeros is not None and zeros.shape != wanted):
        return None
    return _Stored(
        codes, numbers, zeros if zeros is not None and zeros.any() else None, found, block
    )


def _by_integers(node: ir.Node, stored: _Stored, user: ir.Node) -> bool:
    """Whether runtimes compute what reads a weight in integers. Of blocks onnxruntime takes a layer
    into a kernel that cannot run it, as of scales along what is summed up."""
    if not in_integers(user) or stored.block or stored.codes.dtype.bitwidth != BYTE:
        return False
    if stored.axis is None or not is_op(user, "MatMul", "Gemm"):
        return True
    by_rows = is_op(user, "Gemm") and user.attributes.get_int("transB", 0) == 1
    last = len(stored.codes.shape) - 1
    return user.inputs[1] is node.outputs[0] and stored.axis == (0 if by_rows else last)


def _read_by_passes(body: Body, node: ir.Node) -> bool:
    """Whether linear layers, or tables, read it in the form that passes look for."""
    users = readers(node.outputs[0])
    known = all(is_op(user, "Transpose", "Gather", "Reshape") for user in users)
    return known and weight_of(body, node.outputs[0]) is not None


def _read_apart(body: Body, node: ir.Node, stored: _Stored, user: ir.Node) -> None:
    old = node.outputs[0]
    turned = _turned(body, node, stored, user) if is_op(user, "MatMul") else None
    made = turned if turned is not None else _in_floats(body, node, stored)
    for index, value in enumerate(user.inputs):
        if value is old:
            user.replace_input_with(index, made)


def _in_floats(body: Body, node: ir.Node, stored: _Stored) -> ir.Value:
    name = f"{node.inputs[0].name}_values"  # type: ignore[union-attr]
    return body.derive([node.inputs[0]], name, lambda _: stored.values(name))  # type: ignore[list-item]


def _turned(body: Body, node: ir.Node, stored: _Stored, user: ir.Node) -> ir.Value | None:
    """The weight (out, in) through a Transpose; None where no kernel has its scales."""
    if user.inputs[1] is not node.outputs[0] or len(stored.codes.shape) != 2:
        return None
    columns = int(stored.codes.shape.numpy()[1])
    if stored.block:
        if stored.axis != 0:
            return None
    elif stored.axis == 0 or stored.zero is not None:
        return None

    def turn(tensors: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
        (tensor,) = tensors
        if tensor is stored.codes:
            return transposed(tensor)
        numbers = tensor.numpy()
        rows = numbers.T if stored.block else np.broadcast_to(numbers.reshape(-1), (columns,))
        return ir.Tensor(np.ascontiguousarray(rows), dtype=tensor.dtype)

    sources = [value for value in node.inputs if value is not None]
    sources = sources[: 2 if stored.zero is None else 3]
    inputs = [body.derive([value], f"{value.name}_by_rows", turn) for value in sources]
    how = dequantizing(stored.block or None)
    whole = body.emit(user, "DequantizeLinear", inputs, how).outputs[0]
    if weight_of(body, whole) is None:
        return None
    return body.emit(user, "Transpose", [whole], {"perm": [1, 0]}).outputs[0]
