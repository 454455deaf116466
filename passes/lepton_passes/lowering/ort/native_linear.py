"""Lower quantized linear layers, and tables that share their weights, to our own CPU kernels.

    4 bits   MatMul(x, Transpose(Dequantize..))  ->  QuantizedLinear<bits=4>(x, tiles, bias)
    8 bits   the same                            ->  QuantizedLinear<bits=7 or 8>(x, tiles, bias)
    then     Gelu or SiLU of the result, or of a half of it that is a gate of the other half, inside
    tied     Gather(Dequantize.., ids)           ->  QuantizedEmbedding(tiles, ids)

Encoders take the 7 bits in groups of 64: twice as fast as 8, and closer to the model than one scale
for all activations of a call (MiniLM: least cosine 0.997). The residual stream of a decoder has
outliers, so there weights keep their 8 bits and activations get 16.
Refuses: columns, or groups of them, of a length that the kernels have no steps for; fp8.
What it refuses, and a table that no layer shares, is left to the ops of onnxruntime.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import CLOSE, LeptonPass, Tolerance
from lepton_passes.linear import Linear, Weight, linear_of, weight_of
from lepton_passes.lowering.ort.activations import following
from lepton_passes.lowering.ort.tiles import tiled
from lepton_passes.match import bias_of, is_decoder, made_by
from lepton_plugins.linear.spec import UNITS
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeLinear"]

# Columns of a group of 7 bits: the first that divides a row.
_SEVEN = (64, 32, 16, 8)


class LowerNativeLinear(LeptonPass):
    """Lower quantized linear layers to the kernels of ``lepton_plugins.linear``."""

    name = "lower-native-linear"
    summary = "Quantized linear layers to kernels of our own"
    changes_numbers = True
    counts_as = "linear"
    tolerances = {  # noqa: RUF012  # ClassVar of the base
        "fp32": CLOSE,
        "int8": Tolerance(error=0.1, cosine=0.99),
        "int4": Tolerance(error=0.1, cosine=0.99),
    }

    def __init__(self) -> None:
        super().__init__()
        self._decoder = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._decoder = is_decoder(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("MatMul"):
            # Asked for one by one: what one layer takes along changes what the next one reads.
            linear = linear_of(body, node)
            if linear is None or linear.weight.plain:
                continue
            reason = self._refuses(linear.weight)
            if reason is not None:
                self.refuse(body, linear.node, reason)
                continue
            tables = _tables(body, linear.weight)
            self._lower(body, linear, seven=not (tables or self._decoder))
            for table in tables:
                self._look_up(body, table)

    def _refuses(self, weight: Weight) -> str | None:
        if weight.dtype == ir.DataType.FLOAT8E4M3FN:
            return "there is no kernel for weights in fp8"
        group, unit = weight.group or weight.columns, UNITS[weight.bits]
        if group % unit:
            return f"groups of {group} columns are no multiple of {unit}"
        return None

    def _lower(self, body: Body, linear: Linear, *, seven: bool) -> None:
        weight, group = linear.weight, None
        if seven and weight.bits == 8 and weight.group is None:
            group = next((size for size in _SEVEN if weight.columns % size == 0), None)
        bits = 7 if group is not None else weight.bits
        tiles = _packed(body, weight, bits, group or weight.group or weight.columns)
        bias = bias_of(body, linear.y)
        old, extra = (linear.y, None) if bias is None else bias
        then = following(body, old)
        attributes = _attributes(weight, bits, group or weight.group or weight.columns)
        attributes |= {"activation": then.activation, "gated": then.gated}
        inputs = [linear.x, tiles, extra]
        node = body.emit(
            linear.node, "QuantizedLinear", inputs, dict(attributes), domain=CPU_DOMAIN
        )
        body.replace(then.value, node.outputs[0])
        self.fire(body)

    def _look_up(self, body: Body, node: ir.Node) -> None:
        weight = weight_of(body, node.inputs[0])
        assert weight is not None
        group = weight.group or weight.columns
        inputs = [_packed(body, weight, weight.bits, group), node.inputs[1]]
        attributes = _attributes(weight, weight.bits, group)
        new = body.emit(node, "QuantizedEmbedding", inputs, dict(attributes), domain=CPU_DOMAIN)
        body.replace(node.outputs[0], new.outputs[0])


def _packed(body: Body, weight: Weight, bits: int, group: int) -> ir.Value:
    name = f"{weight.values[0].name}_tiles"
    return body.derive(weight.values, name, lambda t: tiled(t[0], t[1], bits, group))


def _attributes(weight: Weight, bits: int, group: int) -> dict[str, int]:
    return {"K": weight.columns, "N": weight.rows, "bits": bits, "block_size": group}


def _tables(body: Body, weight: Weight) -> list[ir.Node]:
    """Nodes that look rows of the weight up."""
    made = {
        use.node.outputs[0]
        for use in weight.values[0].uses()
        if use.node.op_type == "DequantizeLinear"
    }
    readers = [use.node for value in made for use in value.uses()]
    return [
        node
        for node in body.nodes("Gather")
        if node in readers
        and made_by(node.inputs[0], "DequantizeLinear") is not None
        and node.attributes.get_int("axis", 0) == 0
        and (node.inputs[1] is not None and node.inputs[1].dtype in (ir.DataType.INT64, None))
    ]
