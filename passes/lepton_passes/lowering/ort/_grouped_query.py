"""What GroupQueryAttention is told of an attention of our dialect."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["grouped_query"]


def grouped_query(node: ir.Node) -> dict[str, int | float]:
    """Its attributes, rotary embedding aside."""
    return {
        "num_heads": node.attributes.get_int("q_num_heads"),
        "kv_num_heads": node.attributes.get_int("kv_num_heads"),
        "scale": node.attributes.get_float("scale"),
        "softcap": node.attributes.get_float("softcap", 0.0),
        "local_window_size": node.attributes.get_int("window", -1),
    }
