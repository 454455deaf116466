"""Attention as vision models have it: every patch of an image sees all others."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["unmasked"]


def unmasked(node: ir.Node) -> bool:
    """Whether it is ONNX's own attention over rows of all heads, as capture writes it where there
    is no mask: no past, one output, and a scale."""
    given = node.attributes
    plain = node.domain == "" and len(node.inputs) == 3 and len(node.outputs) == 1
    return plain and given.get_int("q_num_heads", 0) > 0 and "scale" in given
