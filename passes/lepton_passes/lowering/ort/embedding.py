"""Lower quantized embedding tables to GatherBlockQuantized.

    Before   Gather(DequantizeLinear(W_q, W_scale), ids)
    After    GatherBlockQuantized(W_q, ids, W_scale), and its zero points where it has any
             Cast(Gather(W_q, ids)) * Unsqueeze(Gather(W_scale, ids)), where a row of 8 bits has
             one scale, and columns that are no multiple of 16
    Refuses  such a row of 4 bits; groups that the kernel has no blocks for; fp8.

A Gather of a DequantizeLinear would compute the whole table for each call, and onnxruntime 1.32
moves the one in front of the other without turning the axis of the scales.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import type_of
from lepton_passes.linear import Weight, weight_of
from lepton_passes.lowering.ort.packing import nbits, packed_zeros, repeated_scales
from lepton_passes.match import has_blocks, largest_block, made_by

__all__ = ["LowerEmbedding"]


class LowerEmbedding(LeptonPass):
    """Look quantized rows up, and compute only those."""

    name = "lower-embedding"
    summary = "Quantized embedding tables to GatherBlockQuantized"
    changes_numbers = True
    counts_as = "embedding"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Gather"):
            if made_by(node.inputs[0], "DequantizeLinear") is None:
                continue
            weight = weight_of(body, node.inputs[0])
            if weight is not None and node.attributes.get_int("axis", 0) == 0:
                self._lower(body, node, weight)

    def _lower(self, body: Body, node: ir.Node, weight: Weight) -> None:
        if weight.dtype == ir.DataType.FLOAT8E4M3FN:
            self.refuse(body, node, "there is no kernel for tables in fp8")
            return
        q, scale, *zeros = weight.values
        block = weight.group or largest_block(weight.columns)
        if block is None and weight.bits == 8:
            self._by_rows(body, node, q, scale)
            return
        if block is None:
            self.refuse(body, node, f"{weight.columns} columns are no multiple of 16")
            return
        if not has_blocks(block, 256 if weight.zero is not None else block):
            self.refuse(body, node, f"no kernel has groups of {block} columns")
            return
        shape = (weight.rows, weight.columns * weight.bits // 8)
        data = body.derive([q], f"{q.name}_rows", lambda t: nbits(t[0], shape))
        if weight.group is None:
            blocks = weight.columns // block
            scale = body.derive(
                [scale], f"{scale.name}_blocks", lambda t: repeated_scales(t[0], blocks)
            )
        attributes = {
            "bits": weight.bits,
            "block_size": block,
            "gather_axis": 0,
            "quantize_axis": 1,
        }
        packed = [body.derive([z], f"{z.name}_blocks", lambda t: packed_zeros(t[0])) for z in zeros]
        new = body.emit(
            node,
            "GatherBlockQuantized",
            [data, node.inputs[1], scale, *packed],
            attributes,
            domain="com.microsoft",
        )
        body.replace(node.outputs[0], new.outputs[0])
        self.fire(body)

    def _by_rows(self, body: Body, node: ir.Node, q: ir.Value, scale: ir.Value) -> None:
        """Look rows and their scales up, and compute in the scales' type."""
        ids = node.inputs[1]
        rows, scales = (body.emit(node, "Gather", [of, ids]).outputs[0] for of in (q, scale))
        last = body.constant_node(node, np.array([-1], np.int64))
        wide = body.emit(node, "Unsqueeze", [scales, last]).outputs[0]
        to = int(type_of(body, scale) or ir.DataType.FLOAT)
        cast = body.emit(node, "Cast", [rows], {"to": to}).outputs[0]
        body.replace(node.outputs[0], body.emit(node, "Mul", [cast, wide]).outputs[0])
        self.fire(body)
