"""Which form of attention each layer got; the engine's entry in the manifest counts them."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from lepton_passes.body import bodies
from lepton_plugins.attention.spec import HEAD_DIMS, HEAD_STEP

__all__ = ["FORM", "FORMS", "FUSED_WIDEST", "attention_forms", "plugin_lacks"]

FORM = "lepton.attention"
"""Key in the metadata of an attention node."""

FORMS = ("native", "mask", "slice", "plugin", "matmul")
"""Forms of attention over a cache that a recipe may choose; an encoder's is ``encoder``, and where
the model's own code computes attention it is ``own``."""

FUSED_WIDEST = 256
"""Width of the widest heads that TensorRT has a fused kernel for."""


def plugin_lacks(heads: int, kv_heads: int, width: int, dtype: ir.DataType | None) -> list[str]:
    """Why the plugin has no kernels for attention of these sizes; empty where it has."""
    (least, most), step = HEAD_DIMS, HEAD_STEP
    found = []
    if not least <= width <= most or width % step:
        found.append(f"heads of {width}, where the plugin has {least} to {most} in steps of {step}")
    if kv_heads <= 0 or heads % kv_heads:
        found.append(f"{heads} query heads are no multiple of {kv_heads} key heads")
    if dtype not in (None, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        found.append(f"the plugin computes in FLOAT16 and BFLOAT16, not in {dtype}")
    return found


def attention_forms(model: ir.Model) -> dict[str, int]:
    """Layers by form, such as ``{"native": 3, "mask": 15}``; to be asked before inlining."""
    counted: Counter[str] = Counter()
    for body in bodies(model):
        for node in body.nodes():
            if FORM in node.metadata_props:
                counted[node.metadata_props[FORM]] += body.times
    return dict(counted)
