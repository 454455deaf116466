"""Matrix products, convolutions, norms and attention that torch itself names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from .core import Handler, Translator

__all__ = ["HANDLERS", "per_axis"]

_HIDDEN = -3.0e4  # beyond any score, and a number in fp16 too


def _linear(t: Translator, node: fx.Node) -> ir.Value:
    """``x @ weight.T + bias`` as MatMul(x, Transpose(weight)) and Add: the dialect's one form."""
    at = t.path(node)
    weight_node = t.arg(node, 1)
    weight = _weight(t, weight_node)
    turned = t.builder.op("Transpose", [weight], {"perm": [1, 0]}, at=at)
    turned.type = weight.type
    if weight.shape is not None:
        turned.shape = ir.Shape(list(weight.shape)[::-1])
    y = t.builder.op("MatMul", [t.value(t.arg(node, 0)), turned], at=at)
    y.type, y.shape = weight.type, t.dim_names(node.meta["val"].shape)
    bias = t.arg(node, 2, "bias")
    return y if bias is None else t.builder.op("Add", [y, t.value(bias)], at=at)


def _weight(t: Translator, argument: fx.Node) -> ir.Value:
    """A weight; one that the model transposes first is stored transposed instead."""
    transposing = ("aten.t.default", "aten.transpose.int", "aten.permute.default")
    if str(argument.target) in transposing and t.is_weight(argument.args[0]):
        return t.weight(argument.args[0], "transpose")  # type: ignore[arg-type]
    return t.value(argument)


def _matmul(t: Translator, node: fx.Node) -> ir.Value:
    return t.builder.op("MatMul", [t.value(node.args[0]), t.value(node.args[1])], at=t.path(node))


def _addmm(t: Translator, node: fx.Node) -> ir.Value:
    bias, a, b = (t.value(argument) for argument in node.args[:3])
    product = t.builder.op("MatMul", [a, b], at=t.path(node))
    alpha, beta = node.kwargs.get("alpha", 1), node.kwargs.get("beta", 1)
    if alpha != 1:
        product = t.builder.op("Mul", [product, t.value(alpha, node)])
    if beta == 0:
        return product
    if beta != 1:
        bias = t.builder.op("Mul", [bias, t.value(beta, node)])
    return t.builder.op("Add", [product, bias], at=t.path(node))


def _layer_norm(t: Translator, node: fx.Node) -> ir.Value:
    shape = t.arg(node, 1)
    weight, bias = t.arg(node, 2, "weight"), t.arg(node, 3, "bias")
    ones = np.ones([int(d) for d in shape], dtype=np.float32)
    inputs = [
        t.value(node.args[0]),
        t.builder.constant(ones) if weight is None else t.value(weight),
    ]
    if bias is not None:
        inputs.append(t.value(bias))
    attributes = {"axis": -len(shape), "epsilon": float(t.arg(node, 4, "eps", 1e-5))}
    return t.builder.op("LayerNormalization", inputs, attributes, at=t.path(node))


def _rms_norm(t: Translator, node: fx.Node) -> ir.Value:
    shape, epsilon = t.arg(node, 1), t.arg(node, 3, "eps")
    weight = t.arg(node, 2, "weight")
    ones = np.ones([int(d) for d in shape], dtype=np.float32)
    scale = t.builder.constant(ones) if weight is None else t.value(weight)
    if epsilon is None:
        epsilon = torch.finfo(node.meta["val"].dtype).eps
    attributes = {"axis": -len(shape), "epsilon": float(epsilon), "stash_type": 1}
    return t.builder.op(
        "RMSNormalization", [t.value(node.args[0]), scale], attributes, at=t.path(node)
    )


def _attention(t: Translator, node: fx.Node) -> ir.Value:
    inputs: list[ir.Value | None] = [t.value(argument) for argument in node.args[:3]]
    mask = t.arg(node, 3, "attn_mask")
    if mask is not None:
        inputs.append(_for_each_query(t, _bias(t, mask), mask, node.args[0]))
    attributes: dict[str, float | int] = {
        "is_causal": int(bool(t.arg(node, 5, "is_causal", False)))
    }
    scale = node.kwargs.get("scale")
    if scale is not None:
        attributes["scale"] = float(scale)  # type: ignore[arg-type]
    return t.builder.op("Attention", inputs, attributes, at=t.path(node))


def _bias(t: Translator, mask: fx.Node) -> ir.Value:
    """A boolean mask as a bias with a finite floor: a row that sees no key must not turn NaN."""
    if mask.meta["val"].dtype != torch.bool:
        return t.value(mask)
    none, hidden = (t.builder.constant(np.array(v, np.float32)) for v in (0.0, _HIDDEN))
    return t.builder.op("Where", [t.value(mask), none, hidden])


def _for_each_query(t: Translator, bias: ir.Value, mask: Any, query: Any) -> ir.Value:
    """A bias that all queries share, once for each: ONNX Runtime does not broadcast it."""
    shape, sizes = mask.meta["val"].shape, query.meta["val"].shape
    if shape[-2] != 1 or sizes[-2] == 1:
        return bias
    ones, rows = t.builder.ints(*[1] * (len(shape) - 2)), t.size(sizes[-2])
    wanted = t.builder.op("Concat", [ones, rows, t.builder.ints(1)], {"axis": 0})
    return t.builder.op("Expand", [bias, wanted])


def _convolution(t: Translator, node: fx.Node) -> ir.Value:
    """``conv1d`` and ``conv2d``; padding by a word is for kernels that every step moves by one."""
    weight = t.arg(node, 1, "weight")
    sizes = [int(d) for d in weight.meta["val"].shape[2:]]
    count = len(sizes)
    strides = per_axis(t.arg(node, 3, "stride", 1), count)
    dilations = per_axis(t.arg(node, 5, "dilation", 1), count)
    pads = t.arg(node, 4, "padding", 0)
    if pads == "same":
        spans = [d * (s - 1) for d, s in zip(dilations, sizes, strict=True)]
        pads = [*(span // 2 for span in spans), *(span - span // 2 for span in spans)]
    else:
        pads = 2 * per_axis(0 if pads == "valid" else pads, count)
    bias = t.arg(node, 2, "bias")
    inputs = [t.value(t.arg(node, 0)), t.value(weight)]
    attributes = {
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "group": int(t.arg(node, 6, "groups", 1)),
    }
    inputs += [] if bias is None else [t.value(bias)]
    return t.builder.op("Conv", inputs, attributes, at=t.path(node))


def per_axis(given: Any, count: int) -> list[int]:
    """A number for each axis, of which one may stand for all."""
    each = [int(n) for n in (given if isinstance(given, list | tuple) else [given])]
    return each * count if len(each) == 1 else each


def _einsum(t: Translator, node: fx.Node) -> ir.Value:
    equation, operands = node.args[0], node.args[1]
    assert isinstance(operands, list | tuple)
    values = [t.value(operand) for operand in operands]
    return t.builder.op(
        "Einsum", values, {"equation": str(equation).replace(" ", "")}, at=t.path(node)
    )


HANDLERS: dict[str, Handler] = {
    "aten.linear": _linear,
    "aten.matmul": _matmul,
    "aten.mm": _matmul,
    "aten.bmm": _matmul,
    "aten.addmm": _addmm,
    "aten.baddbmm": _addmm,
    "aten.einsum": _einsum,
    "aten.conv1d": _convolution,
    "aten.conv2d": _convolution,
    "aten.layer_norm": _layer_norm,
    "aten.rms_norm": _rms_norm,
    "aten.scaled_dot_product_attention": _attention,
}
