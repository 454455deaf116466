"""Lower mixtures of experts that onnxruntime has no kernel for to one of our own.

    Before   Experts<activation = gelu_tanh>(x, indices, shares, Dequantize.., Dequantize..)
    After    QuantizedExperts(x, indices, shares, tiles, tiles)

The weights are those of linear layers, in tiles, one expert behind the other. Experts with SwiGLU,
and those in fp32, are left to ``lower-experts``; those without a gate (Nemotron-H) are taken.
Refuses: Relu; a limit, an offset of up, gate and up in turns, biases; two formats; groups of
columns that the kernel has no steps for; widths that are no multiple of 16.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.experts import SWISH, Experts, experts_in
from lepton_passes.linear import Weight
from lepton_passes.lowering.ort.linear import ROUNDED
from lepton_passes.lowering.ort.tiles import tiled
from lepton_plugins.linear.spec import ACTIVATIONS, EXPERTS, TILE, UNITS
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeExperts"]


# What an activation is called there, where it is another name.
_KERNELS = {SWISH: "silu"}


class LowerNativeExperts(LeptonPass):
    """Lower mixtures of experts with other gates than SwiGLU to a kernel of our own."""

    name = "lower-native-experts"
    summary = "Mixtures of experts that onnxruntime lacks to a kernel of our own"
    changes_numbers = True
    counts_as = "experts"
    tolerances = ROUNDED

    def rewrite(self, body: Body) -> None:
        for mixture in experts_in(body):
            if (mixture.activation == SWISH and mixture.gated) or not mixture.quantized:
                continue
            reason = _refuses(mixture)
            if reason is not None:
                self.refuse(body, mixture.node, reason)
                continue
            self._lower(body, mixture)

    def _lower(self, body: Body, mixture: Experts) -> None:
        first, second = mixture.gate_up, mixture.down
        attributes = {
            "K": first.columns,
            "N": second.columns,
            "experts": mixture.count,
            "bits": first.bits,
            "block_size": _group(first),
            "down_block_size": _group(second),
            "activation": ACTIVATIONS[_KERNELS.get(mixture.activation, mixture.activation)],
            "gated": int(mixture.gated),
        }
        tiles = [_packed(body, weight) for weight in (first, second)]
        inputs = [*mixture.node.inputs[:3], *tiles]
        made = body.emit(mixture.node, EXPERTS.name, inputs, dict(attributes), domain=CPU_DOMAIN)
        body.replace(mixture.node.outputs[0], made.outputs[0])
        self.fire(body)


def _refuses(mixture: Experts) -> str | None:
    given = mixture.node.attributes
    if _KERNELS.get(mixture.activation, mixture.activation) not in ACTIVATIONS:
        return f"the kernel has no {mixture.activation}"
    if mixture.activation == SWISH and given.get_float("alpha") != 1:
        return "the kernel has no factor in its gate"
    if given.get_float("limit", 0.0) or given.get_float("beta", 0.0):
        return "the kernel has no limit and no offset"
    if given.get_int("interleaved", 0) or len(mixture.node.inputs) > 5:
        return "the kernel has no biases, and takes the gate in front of up"
    if not mixture.alike:
        return "gate_up and down are in two formats"
    if mixture.gate_up.dtype not in (ir.DataType.INT4, ir.DataType.INT8):
        return "the kernel has integers of 4 and 8 bits alone"
    for weight in (mixture.gate_up, mixture.down):
        unit = UNITS[weight.bits]
        if _group(weight) % unit:
            return f"groups of {_group(weight)} columns are no multiple of {unit}"
        if weight.columns % TILE:
            return f"{weight.columns} columns are no multiple of {TILE}"
    return None


def _group(weight: Weight) -> int:
    return weight.group or weight.columns


def _packed(body: Body, weight: Weight) -> ir.Value:
    name, group = f"{weight.values[0].name}_tiles", _group(weight)
    return body.derive(weight.values, name, lambda t: tiled(t[0], t[1], weight.bits, group))
