"""A graph whose large tables take less memory to compute with.

Loaders have onnxruntime fuse what surrounds a table of the vocabulary; a check and a calibration
run without its optimizations, where a table that is transposed, or dequantized for the sake of a
few rows, is written out whole. For a small model that is more than all its weights. And where
layers are functions, the weights of all of them are dequantized before the first one runs.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from lepton_passes.body import MICROSOFT, Body, bodies, sweep
from lepton_passes.match import made_by, perm_of

from .four_bits import mostly_four_bits, product_of_four_bits
from .scratch import Once, anew

__all__ = ["in_order", "lean"]

FOUR_BITS = (ir.DataType.INT4, ir.DataType.UINT4)
LEAST_BLOCK = 16  # of GatherBlockQuantized
PIECE = 1 << 24
"""Elements of a table of bytes that are dequantized at a time."""


def lean(model: ir.Model, once: Once = anew) -> ir.Model:
    """``model``, or a copy that computes the same, where it has such tables.

    Products with a transposed matrix take it as it lies, those with 4 bits as they are stored,
    those with a large table of 8 bits a piece of it at a time; rows of a table of 4 or 8 bits are
    looked up before they are dequantized.

    Args:
        once: keeps what is made of weights for the next graph that has them.
    """
    if not any(_turned(body) or _looked_up(body) for body in bodies(model)):
        return model
    copy = model.clone()
    packs = mostly_four_bits(copy)
    for body in bodies(copy):
        for product, matrix in _turned(body):
            made = _product(body, product, matrix, once if packs else None)
            body.replace(product.outputs[0], made)
        for gather, table in _looked_up(body):
            rows = _rows_of_blocks if _in_blocks(table) else _rows_of_bytes
            body.replace(gather.outputs[0], rows(body, gather, table, gather.inputs[1]))
    sweep(copy)
    return copy


def in_order(model: ir.Model) -> ir.Model:
    """``model``, or where it has functions and weights to dequantize a copy without functions: its
    nodes are listed as they may run, a weight dequantized where it is needed."""
    nodes = [*model.graph, *(node for each in model.functions.values() for node in each)]
    if not model.functions or all(node.op_type != "DequantizeLinear" for node in nodes):
        return model
    copy = model.clone()
    InlinePass()(copy)
    return copy


def _product(body: Body, product: ir.Node, matrix: ir.Value, once: Once | None) -> ir.Value:
    """The product with ``matrix`` as it lies; with one of many bytes, piece by piece. ``once`` is
    None where nothing may be packed."""
    x, table = product.inputs[0], made_by(matrix, "DequantizeLinear")
    if table is not None and once is not None:
        made = product_of_four_bits(body, product, table, once)
        if made is not None:
            return made
    q = table.inputs[0] if table is not None and _in_bytes(table) else None
    if table is None or q is None or q.shape is None:
        return _turned_product(body, product, x, matrix)
    rows, columns = q.shape.numpy()
    step = max(1, PIECE // max(1, columns))
    if rows <= step:
        return _turned_product(body, product, x, matrix)
    one, parts = body.constant_node(product, np.array(1)), []
    for start in range(0, rows, step):
        ends = (start, min(start + step, rows))
        low, high = (body.constant_node(product, np.array(end)) for end in ends)
        ids = body.emit(product, "Range", [low, high, one]).outputs[0]
        piece = _rows_of_bytes(body, product, table, ids)
        parts.append(_turned_product(body, product, x, piece))
    return body.emit(product, "Concat", parts, {"axis": -1}).outputs[0]


def _turned_product(body: Body, before: ir.Node, x: ir.Value | None, matrix: ir.Value) -> ir.Value:
    made = body.emit(before, "FusedMatMul", [x, matrix], {"transB": 1}, domain=MICROSOFT)
    return made.outputs[0]


def _turned(body: Body) -> list[tuple[ir.Node, ir.Value]]:
    """Products in fp32 with a transposed matrix, and the matrix as it lies."""
    found = []
    for node in body.nodes("MatMul"):
        source = made_by(node.inputs[1], "Transpose")
        matrix = source.inputs[0] if source is not None and perm_of(source) == (1, 0) else None
        if matrix is not None and ir.DataType.FLOAT in (matrix.dtype, node.outputs[0].dtype):
            found.append((node, matrix))
    return found


def _looked_up(body: Body) -> list[tuple[ir.Node, ir.Node]]:
    """Rows taken of a table, and the node that dequantizes all of it to fp32."""
    found = []
    for node in body.nodes("Gather"):
        table = made_by(node.inputs[0], "DequantizeLinear")
        if table is None or node.attributes.get_int("axis", 0) != 0:
            continue
        scale = table.inputs[1]
        if scale is None or scale.dtype != ir.DataType.FLOAT:
            continue
        if _in_blocks(table) or _in_bytes(table):
            found.append((node, table))
    return found


def _in_blocks(table: ir.Node) -> bool:
    """Four bits by blocks of a row."""
    q, size = table.inputs[0], table.attributes.get_int("block_size", 0)
    if q is None or q.dtype not in FOUR_BITS or q.shape is None or q.shape.rank() != 2:
        return False
    return table.attributes.get_int("axis", 1) in (1, -1) and size >= LEAST_BLOCK


def _in_bytes(table: ir.Node) -> bool:
    """Scales by row, or by blocks of a row; zero is 0."""
    q, scale, *zero = table.inputs
    if zero or q is None or q.dtype != ir.DataType.INT8 or scale is None or scale.shape is None:
        return False
    axis, blocks = table.attributes.get_int("axis", 1), table.attributes.get_int("block_size", 0)
    return axis == 1 if blocks else axis == 0 and scale.shape.rank() == 1


def _rows_of_blocks(body: Body, before: ir.Node, table: ir.Node, ids: ir.Value | None) -> ir.Value:
    q, scale, *zero = table.inputs
    size = table.attributes.get_int("block_size", 0)
    how = {"gather_axis": 0, "quantize_axis": 1, "block_size": size}
    inputs = [q, ids, scale, *zero]
    return body.emit(before, "GatherBlockQuantized", inputs, how, domain=MICROSOFT).outputs[0]


def _rows_of_bytes(body: Body, before: ir.Node, table: ir.Node, ids: ir.Value | None) -> ir.Value:
    q, scale = table.inputs
    assert q is not None
    assert q.shape is not None
    rows, scales = (body.emit(before, "Gather", [v, ids]).outputs[0] for v in (q, scale))
    size = table.attributes.get_int("block_size", 0)
    if not size:
        last = body.constant_node(before, np.array([-1]))
        scales = body.emit(before, "Unsqueeze", [scales, last]).outputs[0]
    how = {"axis": -1, "block_size": size or q.shape.numpy()[1]}
    return body.emit(before, "DequantizeLinear", [rows, scales], how).outputs[0]
