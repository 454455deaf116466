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

from lepton_passes.body import MICROSOFT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import type_of
from lepton_passes.linear import Weight, weight_of
from lepton_passes.lowering.ort.packing import block_of, nbits, scales_and_zeros
from lepton_passes.match import made_by

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
        q, scale = weight.values[:2]
        block = block_of(weight)
        if isinstance(block, str) and weight.group is None and weight.bits == 8:
            self._by_rows(body, node, q, scale)
            return
        if isinstance(block, str):
            self.refuse(body, node, block)
            return
        shape = (weight.rows, weight.columns * weight.bits // 8)
        data = body.derive([q], f"{q.name}_rows", lambda t: nbits(t[0], shape))
        attributes = {
            "bits": weight.bits,
            "block_size": block,
            "gather_axis": 0,
            "quantize_axis": 1,
        }
        scales = scales_and_zeros(body, weight, block)
        new = body.emit(
            node,
            "GatherBlockQuantized",
            [data, node.inputs[1], *scales],
            attributes,
            domain=MICROSOFT,
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
