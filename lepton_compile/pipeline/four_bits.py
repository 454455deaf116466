"""Products with matrices of 4 bits that are not written out in fp32.

A check multiplies a few dozen tokens by all weights. To dequantize them takes ten times as long as
the products, and eight times the memory that they have. MatMulNBits, told to compute in fp32,
dequantizes a few columns at a time while it multiplies.
"""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.lowering.ort.packing import nbits
from lepton_passes.match import has_blocks

from .scratch import Once

__all__ = ["mostly_four_bits", "product_of_four_bits"]

IN_FP32 = 1  # its accuracy_level: activations are not rounded
FEW = 8  # a weight in fp32 is as large, packed, as so many in 4 bits


def mostly_four_bits(model: ir.Model) -> bool:
    """Whether a session may pack weights: for MatMulNBits it has to, and packs those in fp32 too,
    which are copies that a check has no use for."""
    four = floats = 0
    for value in model.graph.initializers.values():
        if value.const_value is None:
            continue
        if value.dtype == ir.DataType.INT4:
            four += value.const_value.size
        elif _may_be_multiplied(value):
            floats += value.const_value.size
    return FEW * floats <= four


def _may_be_multiplied(value: ir.Value) -> bool:
    """A matrix in fp32 that is not looked up; scales of blocks are not told apart from weights."""
    if value.dtype != ir.DataType.FLOAT or value.shape is None or value.shape.rank() != 2:
        return False
    return any(node.op_type != "Gather" for node, _ in value.uses())


def product_of_four_bits(
    body: Body, product: ir.Node, table: ir.Node, once: Once
) -> ir.Value | None:
    """``x @ table.T`` in fp32, with ``table`` of 4 bits as it is stored.

    Args:
        product: the MatMul, its first input in fp32.
        table: the DequantizeLinear of (N, K).
        once: keeps what is made of the weights of one graph for the next.

    Returns:
        None where the op does not take it: another zero than 0, columns that do not fill their
        blocks, or numbers that are no weights.
    """
    q, scale, *zero = table.inputs
    size = table.attributes.get_int("block_size", 0)
    if zero or not has_blocks(size) or table.attributes.get_int("axis", 1) not in (1, -1):
        return None
    if q is None or q.dtype != ir.DataType.INT4 or scale is None or not body.weights(scale):
        return None
    if scale.dtype != ir.DataType.FLOAT or not (tensors := body.weights(q)):
        return None
    rows, columns = tensors[0].shape.numpy()
    if columns % size:
        return None
    pack = partial(nbits, shape=(rows, columns // size, size // 2))
    packed = body.derive([q], f"{q.name}:packed", lambda t: once(t[0], f"packed {size}", pack))
    how = {"N": rows, "K": columns, "bits": 4, "block_size": size, "accuracy_level": IN_FP32}
    inputs = [product.inputs[0], packed, scale]
    return body.emit(product, "MatMulNBits", inputs, how, domain=MICROSOFT).outputs[0]
