"""Types and quantized weights: what TensorRT rejects, and what it reads otherwise than written.

Each check gives the reasons against one node, and nothing where it is fine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.lowering.trt._importers import TYPES
from lepton_passes.match import input_at

__all__ = ["dequantize", "dynamic_blocks", "quantize", "same_types", "turned", "types"]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
QUANTIZED = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1)

# Entries that share a scale, where it is found at run time.
BLOCKS = {"TRT_FP4DynamicQuantize": 16, "TRT_MXFP8DynamicQuantize": 32}

# Ops whose inputs have one type; Where chooses by its first.
# fmt: off
_ALIKE = frozenset({
    "Add", "And", "Concat", "Div", "Equal", "Gemm", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "MatMul", "Max", "Min", "Mod", "Mul", "Or", "Sub", "Sum", "Where", "Xor",
})
# fmt: on


def types(body: Body, node: ir.Node) -> Iterator[str]:
    """Types of elements that do not exist there."""
    found = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None}
    for dtype in sorted(str(d) for d in found if d is not None and d.name not in TYPES):
        yield f"{dtype} is no type of TensorRT"


def same_types(body: Body, node: ir.Node) -> Iterator[str]:
    """Nothing is cast in a strongly typed network."""
    if node.op_type not in _ALIKE:
        return
    inputs = node.inputs[1:] if node.op_type == "Where" else node.inputs
    found = {v.dtype for v in inputs if v is not None and v.dtype is not None}
    if len(found) > 1:
        yield f"its inputs differ in type: {', '.join(sorted(map(str, found)))}"


def turned(body: Body, node: ir.Node) -> Iterator[str]:
    """Angles have the type of what they turn."""
    found = {v.dtype for v in node.inputs[:3] if v is not None and v.dtype is not None}
    if len(found) > 1:
        yield f"x, cos and sin differ in type: {', '.join(sorted(map(str, found)))}"


def dequantize(body: Body, node: ir.Node) -> Iterator[str]:
    """``DequantizeLinear``."""
    q, scale = node.inputs[:2]
    assert q is not None
    assert scale is not None
    yield from _grid(body, node, q.dtype)
    if scale.dtype is not None and scale.dtype not in FLOATS:
        yield f"scales of {scale.dtype}"
    sizes, scales = _sizes(body, q), _sizes(body, scale)
    if sizes is None or scales is None:
        return
    block = node.attributes.get_int("block_size", 0)
    axis = node.attributes.get_int("axis", 1) % max(1, len(sizes))
    if block:
        yield from _blocks(sizes, scales, axis, block)
    elif len(scales) > 1:
        yield "scales by block without block_size"
    elif scales and scales[0] not in (1, sizes[axis]):
        yield f"{scales[0]} scales for the {sizes[axis]} entries of axis {axis}"


def quantize(body: Body, node: ir.Node) -> Iterator[str]:
    """``QuantizeLinear``."""
    zero = input_at(node, 2)
    stated = node.attributes.get_int("output_dtype", 0)
    dtype = ir.DataType(stated) if stated else zero.dtype if zero is not None else None
    yield from _grid(body, node, dtype or ir.DataType.UINT8)
    scale = node.inputs[1]
    if scale is None or body.weights(scale) is not None or body.constant(scale) is not None:
        return
    if scale.shape is None or len(scale.shape) > 0:
        yield "scales of activations that are computed at run time, more than one"


def dynamic_blocks(body: Body, node: ir.Node) -> Iterator[str]:
    """``TRT_FP4DynamicQuantize`` and ``TRT_MXFP8DynamicQuantize``."""
    wanted = BLOCKS[node.op_type]
    block = node.attributes.get_int("block_size", wanted)
    if block != wanted:
        yield f"block_size {block}, where only {wanted} exists"


def _grid(body: Body, node: ir.Node, dtype: ir.DataType | None) -> Iterator[str]:
    """The quantized type, and its zero point."""
    if dtype is not None and dtype not in QUANTIZED:
        yield f"{dtype} cannot be quantized to; there are INT8, INT4, FLOAT8E4M3FN, FLOAT4E2M1"
    zero = input_at(node, 2)
    if zero is None:
        return
    tensors = body.weights(zero)
    constant = body.constant(zero) if tensors is None else None
    arrays = [t.numpy() for t in tensors or ()] if constant is None else [constant]
    if not arrays:
        yield "its zero points are not constant"
    elif any(np.asarray(a).astype(np.float32).any() for a in arrays):
        yield "its zero points are not zero"


def _blocks(
    sizes: tuple[int, ...], scales: tuple[int, ...], axis: int, block: int
) -> Iterator[str]:
    if len(scales) != len(sizes):
        yield "scales by block have as many axes as what they scale"
        return
    if axis < len(sizes) - 2:
        yield "blocks lie along the last axis or the one before it"
    if any(a != b for i, (a, b) in enumerate(zip(sizes, scales, strict=True)) if i != axis):
        yield f"only axis {axis} may be blocked: scales {scales} for {sizes}"
    elif scales[axis] * block != sizes[axis]:
        yield f"block_size {block} is ignored: {scales[axis]} scales for {sizes[axis]} entries"


def _sizes(body: Body, value: ir.Value) -> tuple[int, ...] | None:
    """Sizes of a constant."""
    tensors = body.weights(value)
    if tensors:
        return tuple(int(d) for d in tensors[0].shape.numpy())
    array = body.constant(value)
    return array.shape if array is not None else None
