"""Lower quantized linear layers, and tables that share their weights, to our own CPU kernels.

    4 bits   MatMul(x, Transpose(Dequantize..))  ->  QuantizedLinear<bits=4>(x, tiles, bias)
    8 bits   the same                            ->  QuantizedLinear<bits=7 or 8>(x, tiles, bias)
    zeros    the same with zero points, offsets  ->  .. <bits=4 or 8, offsets=1>
    floats   8 bits that are twice small floats  ->  .. <bits=4, floats=1>
    order    that of Gather<axis=-1>(x, order)   ->  .. (x, tiles, bias, order), of 4 bits
    then     Gelu or SiLU of the result, or of a half of it that is a gate of the other half, inside
    tied     Gather(Dequantize.., ids)           ->  QuantizedEmbedding(tiles, ids)

Encoders take the 7 bits in groups of 64: twice as fast as 8 without VNNI, and closer to the model
than one scale for all activations of a call (MiniLM: least cosine 0.997). The residual stream of a
decoder has outliers, so there both keep 8 bits, activations with a scale for each 32.
Refuses: columns, or groups of them, of a length that the kernels have no steps for; fp8; layers in
half precision, or for which a kernel of onnxruntime was measured to be the better one.
What it refuses, and a table that no layer shares, is left to the ops of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.linear import Linear, Weight, linear_of, lookups, scale_type, weight_of
from lepton_passes.lowering.ort.activations import following
from lepton_passes.lowering.ort.choices import Choices
from lepton_passes.lowering.ort.linear import ROUNDED
from lepton_passes.lowering.ort.tiles import tiled
from lepton_passes.match import bias_of, is_decoder, made_by, sizes_of
from lepton_plugins.linear.spec import UNITS
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeLinear"]

# Columns of a group of 7 bits: the first that divides a row.
_SEVEN = (64, 32, 16, 8)


class LowerNativeLinear(LeptonPass):
    """Lower quantized linear layers to the kernels of ``lepton_plugins.linear``.

    Args:
        choices: which layers get another kernel; left out, none.
    """

    name = "lower-native-linear"
    summary = "Quantized linear layers to kernels of our own"
    changes_numbers = True
    counts_as = "linear"
    tolerances = ROUNDED

    def __init__(self, choices: Choices | None = None) -> None:
        super().__init__()
        self._choices = choices

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if self._choices is not None:
            self._choices.ask(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        decoder = is_decoder(body.model)
        for node in body.nodes("MatMul"):
            # Asked for one by one: what one layer takes along changes what the next one reads.
            linear = linear_of(body, node)
            if linear is None or linear.weight.plain:
                continue
            reason = self._refuses(body, linear) or self._measured(body, linear)
            if reason is not None:
                self.refuse(body, linear.node, reason)
                continue
            tables = [node for node in lookups(linear.weight) if _is_plain(node)]
            self._lower(body, linear, seven=not (tables or decoder))
            for table in tables:
                self._look_up(body, table)

    def _refuses(self, body: Body, linear: Linear) -> str | None:
        weight = linear.weight
        if scale_type(body, weight) != ir.DataType.FLOAT:
            return "the kernel reads and makes fp32 alone"
        if weight.dtype == ir.DataType.FLOAT8E4M3FN:
            return "there is no kernel for weights in fp8"
        bits, group = _format(weight, seven=False)
        unit = UNITS[bits]
        if group % unit:
            return f"groups of {group} columns are no multiple of {unit}"
        return None

    def _measured(self, body: Body, linear: Linear) -> str | None:
        choice = self._choices.of(body, linear) if self._choices is not None else None
        return None if choice is None or choice.kernel == "native" else choice.reason

    def _lower(self, body: Body, linear: Linear, *, seven: bool) -> None:
        bits, group = _format(linear.weight, seven=seven)
        tiles = _packed(body, linear.weight, bits, group)
        bias = bias_of(body, linear.y, linear.weight.rows)
        old, extra = (linear.y, None) if bias is None else bias
        then = following(body, old)
        attributes = _attributes(linear.weight, bits, group)
        attributes |= {"activation": then.activation, "gated": then.gated}
        x, order = _ordered(body, linear) if bits == 4 else (linear.x, None)
        inputs = [x, tiles, extra, order]
        node = body.emit(linear.node, "QuantizedLinear", inputs, attributes, domain=CPU_DOMAIN)
        body.replace(then.value, node.outputs[0])
        self.fire(body)

    def _look_up(self, body: Body, node: ir.Node) -> None:
        weight = weight_of(body, node.inputs[0])
        assert weight is not None
        bits, group = _format(weight, seven=False)
        inputs = [_packed(body, weight, bits, group), node.inputs[1]]
        attributes = _attributes(weight, bits, group)
        new = body.emit(node, "QuantizedEmbedding", inputs, attributes, domain=CPU_DOMAIN)
        body.replace(node.outputs[0], new.outputs[0])


def _format(weight: Weight, *, seven: bool) -> tuple[int, int]:
    """Bits of the packed weight, and columns that share a scale."""
    if weight.floats and weight.group is not None:
        return 4, weight.group
    if seven and weight.bits == 8 and weight.group is None:
        group = next((size for size in _SEVEN if weight.columns % size == 0), None)
        if group is not None:
            return 7, group
    return weight.bits, weight.group or weight.columns


def _packed(body: Body, weight: Weight, bits: int, group: int) -> ir.Value:
    name = f"{weight.values[0].name}_tiles"

    def made(t: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
        return tiled(t[0], t[1], bits, group, *t[2:], floats=weight.floats)

    return body.derive(weight.values, name, made)


def _ordered(body: Body, linear: Linear) -> tuple[ir.Value, ir.Value | None]:
    """What a layer reads, and in which order of columns; ``None`` where that is their own."""
    node = made_by(linear.x, "Gather")
    if node is None or node.attributes.get_int("axis", 0) != -1:
        return linear.x, None
    x, order = node.inputs
    tensors = body.weights(order)
    if x is None or not tensors or any(not _is_order(each, linear) for each in tensors):
        return linear.x, None
    # The kernel takes rows of x for as wide as the order is long.
    sizes = sizes_of(body, x)
    return (x, order) if sizes and sizes[-1] == linear.weight.columns else (linear.x, None)


def _is_order(tensor: ir.TensorProtocol, linear: Linear) -> bool:
    fits = tensor.dtype == ir.DataType.INT32 and tensor.shape.numpy() == (linear.weight.columns,)
    return fits and bool((tensor.numpy() >= 0).all())


def _attributes(weight: Weight, bits: int, group: int) -> dict[str, int]:
    sizes = {"K": weight.columns, "N": weight.rows, "bits": bits, "block_size": group}
    return sizes | {"offsets": int(weight.shifted), "floats": int(weight.floats)}


def _is_plain(lookup: ir.Node) -> bool:
    """Whether a Gather takes rows by ids of the type that the kernel has."""
    ids = lookup.inputs[1]
    by_rows = lookup.attributes.get_int("axis", 0) == 0
    return by_rows and ids is not None and ids.dtype in (ir.DataType.INT64, None)
