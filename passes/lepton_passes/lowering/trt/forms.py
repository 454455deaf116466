"""Which form of attention each layer got; the engine's entry in the manifest counts them."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from lepton_passes.body import bodies

__all__ = ["FORM", "FORMS", "attention_forms"]

FORM = "lepton.attention"
"""Key in the metadata of an attention node."""

FORMS = ("native", "mask", "slice", "plugin")
"""Forms of attention over a cache; an encoder's is ``encoder``."""


def attention_forms(model: ir.Model) -> dict[str, int]:
    """Layers by form, such as ``{"native": 3, "mask": 15}``; to be asked before inlining."""
    counted: Counter[str] = Counter()
    for body in bodies(model):
        for node in body.nodes():
            if FORM in node.metadata_props:
                counted[node.metadata_props[FORM]] += body.times
    return dict(counted)
