"""Lower mixtures of experts to onnxruntime's kernels, which compute the chosen ones alone.

    plain    Experts(x, indices, shares, W, V)  ->  MoE(x, Log(R), W', V') * sum(shares)
    4 and 8 bits  .. Dequantize(..) ..          ->  QMoE(x, R, W', V', router_weights = R)
    on a GPU      the same                      ->  QMoE(x, Log(R), W', V') * sum(shares)

R (tokens, experts) has the shares where the experts are and 0 elsewhere. QMoE takes the largest and
weighs by what it is told. MoE weighs by the Softmax of its scores, which are the logarithms of the
shares, taken in fp32: it divides by their sum, which is put right. Both kernels want the rows of
gate and up in turns: where the model has one behind the other, rows change places as they are
written. In half precision everything is as it was found, in halves. A GPU's QMoE (of 1.31) weighs
by other numbers than it is told, wants sizes of multiples of 64, and was wrong with zero points:
experts with other sizes, or with those, are widened there.

Experts whose two matrices differ in format (rules for one of them) have no kernel: what is rounded
is widened again, and reported. The kernels have no gate of Gelu or Relu: such experts, where
``lower-native-experts`` left them, run as the body of their op, which goes through the chosen ones
alone; what is rounded is widened for it; and so do those without a gate. Refuses: those; matrices
that are no constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, MICROSOFT, Body, bodies
from lepton_passes.contract import LeptonPass
from lepton_passes.dtypes import HALVES, fill_types
from lepton_passes.experts import DOWN, GATE_UP, SWISH, Experts, experts_in
from lepton_passes.linear import Weight
from lepton_passes.lowering.ort.linear import ROUNDED
from lepton_passes.lowering.ort.packing import nbits, packed_zeros
from lepton_passes.stacks import Stack, taking_turns
from lepton_passes.tensors import StreamedTensor, mapped, rows_of

__all__ = ["LowerExperts"]

_Attributes = dict[str, int | float | str | Sequence[int]]
# What the sizes of quantized matrices are a multiple of on a GPU.
_TILE = 64
# The logarithm of nothing would be an infinity, whose difference to another is no number.
_LEAST = np.array(1e-37, dtype=np.float32)


class LowerExperts(LeptonPass):
    """Lower mixtures of experts to MoE and QMoE.

    Args:
        accuracy_level: of QMoE in 4 bits; 4 computes in int8 where the runtime has that, 1 in fp32.
        raw: QMoE is told that its weights are as they are on the CPU: a GPU has a form of its own.
    """

    name = "lower-experts"
    summary = "Mixture of experts (MoE) to the kernels of onnxruntime"
    changes_numbers = True
    counts_as = "experts"
    tolerances = ROUNDED

    def __init__(self, accuracy_level: int = 4, *, raw: bool = False) -> None:
        super().__init__()
        self._accuracy_level = accuracy_level
        self._raw = raw

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if any(body.nodes("Experts", domain=DIALECT) for body in bodies(model)):
            fill_types(model)
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        known = experts_in(body)
        for node in body.nodes("Experts", domain=DIALECT):
            if all(node is not mixture.node for mixture in known):
                self.refuse(body, node, "its matrices are no constants")
        for mixture in known:
            if mixture.activation != SWISH or not mixture.gated:
                self._in_body(body, mixture)
                continue
            reason = self._unpacked(mixture)
            if mixture.quantized and reason is None:
                self._quantized(body, mixture)
                continue
            if mixture.quantized:
                self.refuse(body, mixture.node, f"{reason}; both are widened")
            self._plain(body, mixture)

    def _unpacked(self, mixture: Experts) -> str | None:
        """Why QMoE does not take matrices that are quantized."""
        if not mixture.alike:
            return "gate_up and down are in two formats"
        weights = (mixture.gate_up, mixture.down)
        if self._raw and any(weight.zero is not None for weight in weights):
            return "gate_up and down have zero points"
        if self._raw and any(weight.columns % _TILE for weight in weights):
            return f"columns are no multiple of {_TILE}"
        return None

    def _plain(self, body: Body, mixture: Experts) -> None:
        node = mixture.node
        gate_up, down = (self._wide(body, mixture, w) for w in (mixture.gate_up, mixture.down))
        first = _stacked(body, mixture, gate_up, turns=True)
        second = _stacked(body, mixture, down, turns=False)
        scores = _scores(body, mixture)
        biases = _biases(body, mixture)
        inputs = [node.inputs[0], scores, first, biases[0], second, biases[1]]
        attributes: _Attributes = {**_attributes(mixture), "normalize_routing_weights": 1}
        made = body.emit(node, "MoE", inputs, attributes, domain=MICROSOFT)
        body.replace(node.outputs[0], _weighed(body, mixture, made.outputs[0]))
        self.fire(body)

    def _quantized(self, body: Body, mixture: Experts) -> None:
        node, weight = mixture.node, mixture.gate_up
        both = ((mixture.gate_up, True), (mixture.down, False))
        matrices = [
            (_packed(body, mixture, w, turns=turns), _scales(body, mixture, w, turns=turns))
            for w, turns in both
        ]
        attributes: _Attributes = {**_attributes(mixture), "expert_weight_bits": weight.bits}
        if weight.group is not None:
            attributes["block_size"] = weight.group
            if weight.bits == 4 and self._accuracy_level == 4 and _knows_accuracy_level():
                attributes["accuracy_level"] = 4
        inputs: list[ir.Value | None] = [node.inputs[0]]
        for matrix, bias in zip(matrices, _biases(body, mixture), strict=True):
            inputs += [*matrix, bias]
        if self._raw:
            inputs.insert(1, _scores(body, mixture))
            attributes |= {"weights_prepacked": 0, "normalize_routing_weights": 1}
            mean = body.emit(node, "QMoE", inputs, attributes, domain=MICROSOFT).outputs[0]
            made = _weighed(body, mixture, mean)
        else:
            routed = _routed(body, mixture)
            zeros = [_zeros(body, mixture, w, turns=turns) for w, turns in both]
            inputs = [inputs[0], routed, *inputs[1:], *[None] * 3, *zeros, None, routed]
            made = body.emit(node, "QMoE", inputs, attributes, domain=MICROSOFT).outputs[0]
        body.replace(node.outputs[0], made)
        self.fire(body)

    def _in_body(self, body: Body, mixture: Experts) -> None:
        how = "as the gate" if mixture.gated else "without a gate"
        reason = f"onnxruntime has no kernel with {mixture.activation} {how}"
        if mixture.quantized:
            reason = f"{reason}; the experts are widened"
            for place, weight in ((GATE_UP, mixture.gate_up), (DOWN, mixture.down)):
                mixture.node.replace_input_with(place, self._wide(body, mixture, weight))
        self.refuse(body, mixture.node, reason)

    def _wide(self, body: Body, mixture: Experts, weight: Weight) -> ir.Value:
        """The numbers that the weight's format stands for, in the experts' own type."""
        if weight.plain:
            return weight.values[0]
        name, dtype = f"{weight.values[0].name}_wide", _dtype(mixture)
        return body.derive(weight.values, name, lambda t: _dequantized(dtype, *t))


@cache
def _knows_accuracy_level() -> bool:
    """Whether QMoE of the onnxruntime at hand has that attribute: 1.30 has not."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as runtime

        known = runtime.get_all_operator_schema()
    except (ImportError, AttributeError):
        return False
    return any(each.name == "QMoE" and "accuracy_level" in each.attributes for each in known)


def _routed(body: Body, mixture: Experts) -> ir.Value:
    """The shares by token and expert."""
    node = mixture.node
    indices, shares = node.inputs[1:3]
    tokens = body.emit(node, "Shape", [indices], {"start": 0, "end": 1}).outputs[0]
    count = body.constant_node(node, np.array([mixture.count]))
    shape = body.emit(node, "Concat", [tokens, count], {"axis": 0}).outputs[0]
    zero = body.constant_node(node, np.array(0, dtype=_dtype(mixture).numpy()))
    zeros = body.emit(node, "Expand", [zero, shape]).outputs[0]
    return body.emit(node, "ScatterElements", [zeros, indices, shares], {"axis": 1}).outputs[0]


def _scores(body: Body, mixture: Experts) -> ir.Value:
    """Logarithms of the shares by token and expert, of which MoE takes the Softmax."""
    node, value, dtype = mixture.node, _routed(body, mixture), _dtype(mixture)
    if dtype in HALVES:
        value = body.emit(node, "Cast", [value], {"to": int(ir.DataType.FLOAT)}).outputs[0]
    least = body.constant_node(node, _LEAST)
    value = body.emit(node, "Max", [value, least]).outputs[0]
    value = body.emit(node, "Log", [value]).outputs[0]
    if dtype in HALVES:
        value = body.emit(node, "Cast", [value], {"to": int(dtype)}).outputs[0]
    return value


def _weighed(body: Body, mixture: Experts, mean: ir.Value) -> ir.Value:
    """A mean of experts as their sum: shares need not add up to one."""
    node = mixture.node
    axis = body.constant_node(node, np.array([1]))
    total = body.emit(node, "ReduceSum", [node.inputs[2], axis], {"keepdims": 1}).outputs[0]
    return body.emit(node, "Mul", [mean, total]).outputs[0]


def _dtype(mixture: Experts) -> ir.DataType:
    """What the experts compute in."""
    x = mixture.node.inputs[0]
    return x.dtype if x is not None and x.dtype in HALVES else ir.DataType.FLOAT


def _attributes(mixture: Experts) -> _Attributes:
    given = mixture.node.attributes
    made: _Attributes = {
        "k": given.get_int("chosen"),
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "activation_alpha": given.get_float("alpha"),
        "activation_beta": given.get_float("beta"),
    }
    if limit := given.get_float("limit", 0.0):
        made["swiglu_limit"] = limit
    return made


def _turned(mixture: Experts, tensor: ir.TensorProtocol, *, turns: bool) -> ir.TensorProtocol:
    """Rows in turns, where they are not already."""
    if not turns or mixture.in_turns:
        return tensor
    return taking_turns(tensor, mixture.count)


def _stacked(body: Body, mixture: Experts, value: ir.Value, *, turns: bool) -> ir.Value:
    def make(tensor: ir.TensorProtocol) -> StreamedTensor:
        return Stack(_turned(mixture, tensor, turns=turns), mixture.count)

    return body.derive([value], f"{value.name}_experts", lambda t: make(t[0]))


def _packed(body: Body, mixture: Experts, weight: Weight, *, turns: bool) -> ir.Value:
    q = weight.values[0]
    shape = (weight.rows, weight.columns * weight.bits // 8)

    def make(tensor: ir.TensorProtocol) -> StreamedTensor:
        return Stack(nbits(_turned(mixture, tensor, turns=turns), shape), mixture.count)

    return body.derive([q], f"{q.name}_experts", lambda t: make(t[0]))


def _zeros(body: Body, mixture: Experts, weight: Weight, *, turns: bool) -> ir.Value | None:
    zero = weight.zero
    if zero is None:
        return None

    def make(tensor: ir.TensorProtocol) -> StreamedTensor:
        return Stack(packed_zeros(_turned(mixture, tensor, turns=turns)), mixture.count)

    return body.derive([zero], f"{zero.name}_experts", lambda t: make(t[0]))


def _scales(body: Body, mixture: Experts, weight: Weight, *, turns: bool) -> ir.Value:
    return _stacked(body, mixture, weight.values[1], turns=turns)


def _biases(body: Body, mixture: Experts) -> tuple[ir.Value | None, ir.Value | None]:
    """Those of gate_up, in turns, and of down."""
    first, second = mixture.biases
    if first is not None and not mixture.in_turns:
        first = body.derive([first], f"{first.name}_turns", lambda t: _turned_bias(t[0]))
    return first, second


def _turned_bias(tensor: ir.TensorProtocol) -> StreamedTensor:
    """(experts, 2 inner): the two halves of each row in turns."""

    def turns(rows: np.ndarray) -> np.ndarray:
        return np.swapaxes(rows.reshape(len(rows), 2, -1), 1, 2).reshape(rows.shape)

    return mapped(tensor, f"{tensor.name}_turns", turns)


def _dequantized(
    dtype: ir.DataType,
    q: ir.TensorProtocol,
    scale: ir.TensorProtocol,
    zero: ir.TensorProtocol | None = None,
) -> StreamedTensor:
    """Integers (rows, columns) with scales, and zero points where they have any, as ``dtype``."""
    columns = int(q.shape.numpy()[1])

    def read(start: int, stop: int) -> np.ndarray:
        scales = np.asarray(rows_of(scale, start, stop)).astype(np.float32)
        scales = scales.reshape(stop - start, -1, 1)
        integers = np.asarray(rows_of(q, start, stop)).astype(np.float32)
        groups = integers.reshape(stop - start, scales.shape[1], -1)
        if zero is not None:
            groups -= np.asarray(rows_of(zero, start, stop)).astype(np.float32)[:, :, None]
        wide: np.ndarray = (groups * scales).reshape(stop - start, columns).astype(dtype.numpy())
        return wide

    return StreamedTensor(f"{q.name}_wide", dtype, q.shape.numpy(), read)
