"""Attention written out in products and a Softmax: what says everything, with scores in memory.

    scores = q * scale @ k';  softcap * tanh(scores / softcap);  + bias;  Softmax in fp32;  @ v

Heads that share keys are an axis of their own, so that keys are not copied for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body

__all__ = ["written_attention"]

FLOAT = ir.DataType.FLOAT


def written_attention(
    body: Body,
    before: ir.Node,
    inputs: Sequence[ir.Value],
    sizes: tuple[int, int, int],
    softcap: float,
) -> ir.Value:
    """What attention gives, (batch, heads, sequence, width).

    Args:
        inputs: query, scaled, keys and values, (batch, heads, sequence, width) each; then the bias
            in fp32, (batch, 1, sequence or 1, keys).
        sizes: heads of queries, heads of keys and values, width.
    """

    def node(op_type: str, *given: ir.Value, **attributes: int | Sequence[int]) -> ir.Value:
        return body.emit(before, op_type, given, attributes).outputs[0]

    def constant(value: object, dtype: object = None) -> ir.Value:
        return body.constant_node(before, np.asarray(value, dtype=dtype))  # type: ignore[call-overload]

    query, key, value, bias = inputs
    half, (heads, shared, width) = query.dtype or FLOAT, sizes
    apart, turned = 5 if heads != shared else 4, [0, 1, 3, 2]
    if apart == 5:
        group = constant([0, shared, heads // shared, -1, width])
        query, turned = node("Reshape", query, group), [0, 1, 2, 4, 3]
        key, value = (node("Unsqueeze", each, constant([2])) for each in (key, value))
        bias = node("Unsqueeze", bias, constant([1]))
    scores = node("MatMul", query, node("Transpose", key, perm=turned))
    if half != FLOAT:
        scores.type = ir.TensorType(half)
        scores = node("Cast", scores, to=int(FLOAT))
    if softcap:
        cap = constant(softcap, np.float32)
        scores = node("Mul", node("Tanh", node("Div", scores, cap)), cap)
    weights = node("Softmax", node("Add", scores, bias), axis=-1)
    if half != FLOAT:
        weights = node("Cast", weights, to=int(half))
    found = node("MatMul", weights, value)
    if apart == 5:
        found = node("Reshape", found, constant([0, heads, -1, width]))
    found.type = ir.TensorType(half)
    return found
