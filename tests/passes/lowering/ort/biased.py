"""Graphs of attention with a bias of scores, as models with relative positions have it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from tests.passes.support import load

__all__ = ["CUT", "attention", "inferred", "turned"]

CUT = "heads = Constant <value_ints = [0, 0, 4, 16]> ()"


def turned(name: str, source: str) -> str:
    """Heads of a row (batch, sequence, 64) as (batch, 4, sequence, 16)."""
    return f"""{name}_cut = Reshape ({source}, heads)
      {name} = Transpose <perm = [0, 2, 1, 3]> ({name}_cut)"""


def attention(q: str, k: str, v: str, more: str = "scale = 0.3", bias: str = "bias") -> str:
    """Attention, and its heads side by side again."""
    return f"""made = Attention <{more}> ({q}, {k}, {v}, {bias})
      back = Transpose <perm = [0, 2, 1, 3]> (made)
      side = Constant <value_ints = [0, 0, 64]> ()
      y = Reshape (back, side)"""


def inferred(text: str) -> ir.Model:
    """A model with the shapes and types that a captured one has."""
    proto = ir.to_proto(load(text))
    known = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    model = ir.from_proto(known)
    for node in model.graph:
        for value in node.outputs:
            if value.const_value is None and node.op_type == "Constant":
                value.const_value = ir.convenience.get_const_tensor(value)
    return model


def mask_of(lengths: list[int], total: int) -> np.ndarray:
    """What hides keys behind these lengths: (batch, 1, 1, total)."""
    seen = np.arange(total) < np.array(lengths)[:, None]
    least = np.finfo(np.float32).min
    return np.where(seen, np.float32(0), least)[:, None, None]
