"""Lower linear attention to the kernel of onnxruntime.

    Before   y, present = ai.lepton::LinearAttention(query, key, value, past, decay, beta)
    After    y, present = com.microsoft::LinearAttention(query, key, value, past, decay, beta)

The body of the first is a loop over tokens. Without beta the rule is the gated one.
"""

from __future__ import annotations

from collections.abc import Sequence

from lepton_passes.body import DIALECT, MICROSOFT, Body
from lepton_passes.contract import LeptonPass

__all__ = ["LowerLinearAttention"]


class LowerLinearAttention(LeptonPass):
    """Lower linear attention to the kernel of the same name."""

    name = "lower-linear-attention"
    summary = "Linear attention to the kernel of onnxruntime"
    changes_numbers = True
    counts_as = "linear_attention"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("LinearAttention", domain=DIALECT):
            rule = "gated_delta" if len(node.inputs) == 6 else "gated"
            attributes: dict[str, int | float | str | Sequence[int]] = {
                "q_num_heads": node.attributes.get_int("q_num_heads"),
                "kv_num_heads": node.attributes.get_int("kv_num_heads"),
                "scale": node.attributes.get_float("scale"),
                "update_rule": rule,
            }
            made = body.emit(
                node, "LinearAttention", node.inputs, attributes, domain=MICROSOFT, outputs=2
            )
            body.replace_all(node.outputs, made.outputs)
            self.fire(body)
