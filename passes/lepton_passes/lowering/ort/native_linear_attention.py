"""Lower linear attention to our own CPU kernel.

    Before   q, k = Reshape(Expand(x))                     heads, repeated for those of values
             y, present = ai.lepton::LinearAttention(q, k, v, past, decay, beta)
    After    y, present = LinearAttention(Reshape(x), .., v, past, decay, beta)

The kernel knows that heads are shared: Mamba-2 has a hundred copies of each key and query else. It
takes a third of the time of onnxruntime's for a prompt and half of it for a token.
Refuses: keys of unknown length, or longer than the kernel takes.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import made_by, sizes_of
from lepton_plugins.linear_attention.spec import MOST_DEPTH
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeLinearAttention"]

_PAST = 3


class LowerNativeLinearAttention(LeptonPass):
    """Lower linear attention to a kernel of our own."""

    name = "lower-native-linear-attention"
    summary = "Linear attention to a kernel of our own"
    changes_numbers = True
    counts_as = "linear_attention"

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("LinearAttention", domain=DIALECT):
            depth = _depth(body, node)
            if depth is None or depth > MOST_DEPTH:
                reason = "is unknown" if depth is None else f"is {depth}, above {MOST_DEPTH}"
                self.refuse(body, node, f"the length of a key {reason}")
                continue
            query, key, *others = node.inputs
            made = body.emit(
                node,
                "LinearAttention",
                [_once(body, query, depth), _once(body, key, depth), *others],
                {"scale": node.attributes.get_float("scale")},
                domain=CPU_DOMAIN,
                outputs=2,
            )
            body.replace_all(node.outputs, made.outputs)
            self.fire(body)


def _depth(body: Body, node: ir.Node) -> int | None:
    """Length of a key, from the shape of the state."""
    sizes = sizes_of(body, node.inputs[_PAST])
    depth = sizes[2] if sizes is not None and len(sizes) == 4 else None
    return depth if isinstance(depth, int) else None


def _once(body: Body, value: ir.Value | None, depth: int) -> ir.Value | None:
    """(batch, sequence, heads * depth) before each head was repeated; else ``value`` as it is."""
    flat = made_by(value, "Reshape")
    repeated = made_by(flat.inputs[0], "Expand") if flat is not None else None
    if flat is None or repeated is None or repeated.inputs[0] is None:
        return value
    found = [sizes_of(body, v) for v in (repeated.inputs[0], repeated.outputs[0], value)]
    before, after, whole = (sizes or () for sizes in found)
    outer, heads = before[:-2], [size for size in before[2:-2] if isinstance(size, int)]
    spread = before[-2:] == (1, depth) and outer == after[:-2] and after[-1] == depth
    if not spread or len(heads) != len(outer) - 2 or (len(whole), whole[:2]) != (3, outer[:2]):
        return value
    shape = body.constant_node(flat, np.array([0, 0, math.prod(heads) * depth], dtype=np.int64))
    return body.emit(flat, "Reshape", [repeated.inputs[0], shape]).outputs[0]
