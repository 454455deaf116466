"""Products of bytes that do not overflow, on any processor.

On x86 without VNNI the kernel of DynamicQuantizeMatMul for signed weights adds two products in 16
bits, where they saturate. Loaders have onnxruntime put other kernels in, which it does as an
optimization; a check runs without those. So it gets the same weights unsigned, with a zero point of
128: those go through the kernels that are exact everywhere.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import MICROSOFT, bodies, sweep
from lepton_passes.lowering.ort.packing import nbits
from lepton_passes.match import input_at
from lepton_passes.tensors import StreamedTensor

from .scratch import Once, anew

__all__ = ["with_unsigned_weights"]

ZERO, ZERO_AT = np.array(128, dtype=np.uint8), 3


def with_unsigned_weights(model: ir.Model, once: Once = anew) -> ir.Model:
    """``model``, or a copy that computes the same, where it has DynamicQuantizeMatMul.

    Args:
        once: keeps what is made of weights for the next graph that has them.
    """
    if not any(body.nodes("DynamicQuantizeMatMul", domain=MICROSOFT) for body in bodies(model)):
        return model
    copy = model.clone()
    for body in bodies(copy):
        for node in body.nodes("DynamicQuantizeMatMul", domain=MICROSOFT):
            weight = node.inputs[1]
            if input_at(node, ZERO_AT) is not None:
                continue  # of a file, whose zero points are its own
            if weight is None or weight.dtype != ir.DataType.INT8 or not body.weights(weight):
                continue
            name = f"{weight.name}:unsigned"
            made = body.derive([weight], name, lambda t: once(t[0], "unsigned", _unsigned))
            zero = body.constant_node(node, ZERO)
            node.resize_inputs(max(ZERO_AT + 1, len(node.inputs)))
            node.replace_input_with(1, made)
            node.replace_input_with(ZERO_AT, zero)
    sweep(copy)
    return copy


def _unsigned(q: ir.TensorProtocol) -> StreamedTensor:
    """INT8 as UINT8 whose zero is 128: the sign bit flips."""
    return nbits(q, tuple(q.shape.numpy()))
