"""Lower quantized mixtures of experts to a kernel of our own.

    Before   Experts(x, indices, shares, Dequantize.., Dequantize.., biases)
    After    QuantizedExperts(x, indices, shares, tiles, tiles, biases)

The weights are those of linear layers, in tiles, one expert behind the other; rows of gate and up
that take turns (GPT-OSS) are put one half behind the other. QMoE of onnxruntime has SwiGLU alone,
and takes 1.1 to 2.4 times as long for it. Experts in fp32 are left to ``lower-experts``.
Refuses: Relu; a factor, limit or offset in another gate than SwiGLU's; two formats; groups of
columns that the kernel has no steps for; widths that are no multiple of 16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.experts import SWISH, Experts, experts_in
from lepton_passes.linear import Weight
from lepton_passes.lowering.ort.linear import ROUNDED
from lepton_passes.lowering.ort.tiles import tiled
from lepton_passes.stacks import one_by_one
from lepton_passes.tensors import StreamedTensor, mapped
from lepton_plugins.linear.spec import ACTIVATIONS, EXPERTS, TILE, UNITS
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeExperts"]


# What an activation is called there, where it is another name.
_KERNELS = {SWISH: "silu"}
GATE = {"alpha": 1.0, "limit": 0.0, "beta": 0.0}
"""What may be done to a gate besides, and the values with which nothing is."""


class LowerNativeExperts(LeptonPass):
    """Lower quantized mixtures of experts to the kernel of ``lepton_plugins.linear``."""

    name = "lower-native-experts"
    summary = "Quantized mixture of experts (MoE) to a kernel of our own"
    changes_numbers = True
    counts_as = "experts"
    tolerances = ROUNDED

    def rewrite(self, body: Body) -> None:
        for mixture in experts_in(body):
            if not mixture.quantized:
                continue
            floats = mixture.gate_up.floats and mixture.down.floats
            bits = 4 if floats else mixture.gate_up.bits
            reason = _refuses(mixture, bits)
            if reason is not None:
                self.refuse(body, mixture.node, reason)
                continue
            self._lower(body, mixture, bits, floats=floats)

    def _lower(self, body: Body, mixture: Experts, bits: int, *, floats: bool) -> None:
        first, second, given = mixture.gate_up, mixture.down, mixture.node.attributes
        attributes = {
            "K": first.columns,
            "N": second.columns,
            "experts": mixture.count,
            "bits": bits,
            "block_size": _group(first),
            "down_block_size": _group(second),
            "activation": ACTIVATIONS[_KERNELS.get(mixture.activation, mixture.activation)],
            "gated": int(mixture.gated),
            "offsets": int(first.shifted),
            "down_offsets": int(second.shifted),
            "floats": int(floats),
            **{name: given.get_float(name, usual) for name, usual in GATE.items()},
        }
        tiles = [_packed(body, mixture, each, bits, floats=floats) for each in (first, second)]
        inputs = [*mixture.node.inputs[:3], *tiles, *_biases(body, mixture)]
        made = body.emit(mixture.node, EXPERTS.name, inputs, attributes, domain=CPU_DOMAIN)
        body.replace(mixture.node.outputs[0], made.outputs[0])
        self.fire(body)


def _refuses(mixture: Experts, bits: int) -> str | None:
    given = mixture.node.attributes
    if _KERNELS.get(mixture.activation, mixture.activation) not in ACTIVATIONS:
        return f"the kernel has no {mixture.activation}"
    plain = all(given.get_float(name, usual) == usual for name, usual in GATE.items())
    if not plain and not (mixture.activation == SWISH and mixture.gated):
        return "the kernel has a factor, a limit and an offset in the gate of SwiGLU alone"
    if not mixture.alike:
        return "gate_up and down are in two formats"
    if mixture.gate_up.dtype == ir.DataType.FLOAT8E4M3FN:
        return "the kernel has integers of 4 and 8 bits alone"
    for weight in (mixture.gate_up, mixture.down):
        unit = UNITS[bits]
        if _group(weight) % unit:
            return f"groups of {_group(weight)} columns are no multiple of {unit}"
        if weight.columns % TILE:
            return f"{weight.columns} columns are no multiple of {TILE}"
    return None


def _group(weight: Weight) -> int:
    return weight.group or weight.columns


def _packed(body: Body, mixture: Experts, weight: Weight, bits: int, *, floats: bool) -> ir.Value:
    name, group = f"{weight.values[0].name}_tiles", _group(weight)

    def made(tensors: Sequence[ir.TensorProtocol]) -> StreamedTensor:
        q, scale, *shift = (_halves(mixture, weight, tensor) for tensor in tensors)
        return tiled(q, scale, bits, group, *shift, floats=floats)

    return body.derive(weight.values, name, made)


def _halves(mixture: Experts, weight: Weight, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Rows of gate and up one half behind the other, where they take turns."""
    turns = weight is mixture.gate_up and mixture.in_turns
    return one_by_one(tensor, mixture.count) if turns else tensor


def _biases(body: Body, mixture: Experts) -> tuple[ir.Value | None, ir.Value | None]:
    """Those of gate_up, gate in front of up, and of down."""
    first, second = mixture.biases
    if first is not None and mixture.in_turns:
        first = body.derive([first], f"{first.name}_halves", lambda t: _one_half_behind(t[0]))
    return first, second


def _one_half_behind(tensor: ir.TensorProtocol) -> StreamedTensor:
    """(experts, 2 inner), numbers of the two halves in turns: one half behind the other."""

    def halves(rows: np.ndarray) -> np.ndarray:
        return np.swapaxes(rows.reshape(len(rows), -1, 2), 1, 2).reshape(rows.shape)

    return mapped(tensor, f"{tensor.name}_halves", halves)
