"""A layer by itself, lowered with each kernel by the passes that a build uses.

Weights are normal numbers, repeated; inputs have heavy tails (Student's t with 3
degrees of freedom): real activations have outliers, and that is where kernels that round them
differ. On these numbers the kernels compare as they do in Gemma 3 270M and MiniLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from lepton_passes.body import MICROSOFT
from lepton_passes.contract import LeptonPass
from lepton_passes.linear import dequantizing
from lepton_passes.lowering.ort.choices import Layer, Tactic
from lepton_passes.lowering.ort.embedding import LowerEmbedding
from lepton_passes.lowering.ort.linear import LowerLinear, default_kernel
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_plugins.linear.spec import ACTIVATIONS

__all__ = ["DeclinedError", "feeds_of", "lowered", "repeated", "tactics_of", "usual", "weights_of"]

_NUMBERS = 65537  # a prime, so that no row of a matrix is like another
_CACHE = "past_key_values.0.key"  # what passes know a decoder by
_LEVELS = {4: (7, 2.5), 8: (127, 3.5)}


class DeclinedError(Exception):
    """A pass has no kernel for the layer."""


def tactics_of(layer: Layer) -> tuple[Tactic, ...]:
    """What there is to choose from; a pass may still decline.

    DynamicQuantizeMatMul has no scales by block, and its bytes are not those of a table.
    """
    if layer.bits == 8 and layer.group is None and not layer.tied:
        return ("native", "nbits", "dynamic")
    return ("native", "nbits")


def usual(layer: Layer, able: Sequence[Tactic]) -> Tactic:
    """What a build takes where nothing was measured."""
    if "native" in able or not able:
        return "native"
    kernel = default_kernel(layer.rows, layer.columns, layer.tied, layer.decoder)
    return kernel if layer.group is None and kernel in able else "nbits"


def lowered(layer: Layer, tactic: Tactic) -> ir.Model:
    """A model of the layer alone, for onnxruntime.

    Raises:
        DeclinedError: no kernel takes it.
    """
    model = _neutral(layer)
    passes: list[LeptonPass] = [LowerNativeLinear()]
    if tactic != "native":
        passes = [LowerLinear(lambda *_: tactic), LowerEmbedding()]
    for each in passes:
        each(model)
        if each.refusals:
            raise DeclinedError(each.refusals[0].reason)
    return model


def weights_of(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Integers (rows, columns) and their scales, as the passes in front left them."""
    q = np.resize(_integers(layer.bits), (layer.rows, layer.columns))
    shape = (layer.rows,) if layer.group is None else (layer.rows, layer.columns // layer.group)
    return q, np.full(shape, 1 / (_LEVELS[layer.bits][0] * layer.columns**0.5), np.float32)


def feeds_of(layer: Layer, rows: int) -> dict[str, np.ndarray]:
    """Inputs of the model of a layer."""
    feeds = {"x": np.resize(_heavy_tailed(), (rows, layer.columns))}
    if layer.tied:
        feeds["ids"] = np.arange(rows, dtype=np.int64) % layer.rows
    if layer.decoder:
        feeds[_CACHE] = np.zeros(1, np.float32)
    return feeds


def repeated(model: ir.Model, copies: int) -> bytes:
    """The file of a model that does the same several times, each time with the rows of
    its weights in another order: what kernels make of equal bytes onnxruntime keeps once, and it
    would then lie in the caches."""
    proto = ir.to_proto(model)
    graph = proto.graph
    parts = [graph.node, graph.initializer, graph.output]
    found = [list(part) for part in parts]
    given = {value.name for value in graph.input} | {""}
    for number in range(1, copies):
        for part, originals in zip(parts, found, strict=True):
            part.extend(originals)
            for each in part[-len(originals) :]:
                _rename(each, given, f"_{number}")
                if isinstance(each, onnx.TensorProto):
                    _turn(each, number)
    data: bytes = proto.SerializeToString()
    return data


def _turn(tensor: onnx.TensorProto, rows: int) -> None:
    """Move the last ``rows`` rows to the front."""
    row = len(tensor.raw_data) // max(tensor.dims[0], 1) if len(tensor.dims) > 1 else 0
    at = len(tensor.raw_data) - rows * row
    if 0 < at < len(tensor.raw_data):
        tensor.raw_data = tensor.raw_data[at:] + tensor.raw_data[:at]


def _rename(each: Any, given: set[str], suffix: str) -> None:
    each.name += suffix
    if isinstance(each, onnx.NodeProto):
        each.input[:] = [name if name in given else name + suffix for name in each.input]
        each.output[:] = [name + suffix for name in each.output]


@cache
def _integers(bits: int) -> np.ndarray:
    most, reach = _LEVELS[bits]
    numbers = np.random.default_rng(0).standard_normal(_NUMBERS) * (most / reach)
    return np.clip(np.rint(numbers), -most, most).astype(np.int8)


@cache
def _heavy_tailed() -> np.ndarray:
    return np.random.default_rng(1).standard_t(3, _NUMBERS).astype(np.float32)


def _neutral(layer: Layer) -> ir.Model:
    """What the passes of a build find in front of them."""
    x = _input("x", ir.DataType.FLOAT, ("rows", layer.columns))
    q, scale = _initializers(layer)
    weight = ir.node("DequantizeLinear", [q, scale], dequantizing(layer.group))
    turned = ir.node("Transpose", [weight.outputs[0]], {"perm": [1, 0]})
    product = ir.node("MatMul", [x, turned.outputs[0]])
    product.outputs[0].shape = ir.Shape(("rows", layer.rows))
    nodes = [weight, turned, product, *_behind(layer, product.outputs[0])]
    for value in (out for node in nodes for out in node.outputs):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    inputs, outputs = [x], [nodes[-1].outputs[0]]
    if layer.tied:
        inputs.append(_input("ids", ir.DataType.INT64, ("rows",)))
        nodes.append(ir.node("Gather", [weight.outputs[0], inputs[-1]]))
        outputs.append(nodes[-1].outputs[0])
    if layer.decoder:
        inputs.append(_input(_CACHE, ir.DataType.FLOAT, (1,)))
    for name, value in zip(("y", "rows_read"), outputs, strict=False):
        value.name, value.type = name, ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 24, MICROSOFT: 1}
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=(q, scale), opset_imports=opsets)
    graph.name = "layer"
    return ir.Model(graph, ir_version=11)


def _behind(layer: Layer, y: ir.Value) -> list[ir.Node]:
    """The activation function behind a layer, or the gate."""
    if not layer.gated:
        return [_activation(layer.activation, y)] if layer.activation else []
    halves = ir.node("Constant", [], {"value": ir.tensor([layer.rows // 2] * 2)})
    split = ir.node("Split", [y, halves.outputs[0]], {"axis": -1}, num_outputs=2)
    gate = _activation(layer.activation, split.outputs[0])
    return [halves, split, gate, ir.node("Mul", [gate.outputs[0], split.outputs[1]])]


def _activation(number: int, x: ir.Value) -> ir.Node:
    if number == ACTIVATIONS["silu"]:
        return ir.node("QuickGelu", [x], {"alpha": 1.0}, domain=MICROSOFT)
    tanh = number == ACTIVATIONS["gelu_tanh"]
    return ir.node("Gelu", [x], {"approximate": "tanh" if tanh else "none"})


def _initializers(layer: Layer) -> list[ir.Value]:
    q, scale = weights_of(layer)
    stored = q.view(ml_dtypes.int4) if layer.bits == 4 else q
    return [_constant("w_q", stored), _constant("w_scale", scale)]


def _constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
    return ir.Value(name=name, type=kind, shape=shape, const_value=tensor)


def _input(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
