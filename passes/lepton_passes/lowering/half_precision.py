"""Compute in fp16 or bf16, with every type written down: what a strongly typed builder wants.

    Before   MatMul(x, Transpose(W)), Add, Attention, ... in fp32; caches fp32
    After    the same in half precision: W and scales of DequantizeLinear cast lazily, caches and
             what passes between layers half; logits and other outputs Cast back to fp32
    Islands  Cast -> RMSNormalization, LayerNormalization, Softmax -> Cast, weights of norms in
             fp32; always so: reductions, roots, quotients, and what follows them (pooling), and
             linear attention, whose state goes on through all tokens
    As is    what ONNX has in fp32 alone (scales of Resize); If, Loop and Scan with all that their
             branches read; functions of the model that are no layers

Place: behind the passes that quantize and stack weights, which read fp32, and in front of all that
is for one target: attention is lowered in the type it finds. Without ``islands`` norms, Softmax and
rotary embeddings take halves: onnxruntime's kernels widen inside.

A constant beyond the range of fp16 saturates (masks); an op with a constant that fp16 rounds to
zero stays in fp32 and is reported. A weight beyond the range fails when it is written, by name.
"""

from __future__ import annotations

from typing import TypeGuard

import ml_dtypes
import numpy as np
import onnx_ir as ir

from lepton_passes.body import LAYER_DOMAIN, Body, bodies, sweep
from lepton_passes.contract import ROUNDING, LeptonPass, Tolerance
from lepton_passes.dtypes import HALVES, fill_types, gives, set_type, states_type, takes
from lepton_passes.lowering._own_types import own_types, places
from lepton_passes.lowering._wants import MOVES, POINTWISE, Want, Wants
from lepton_passes.lowering._wide_states import is_wide, wide_states
from lepton_passes.match import PAST, PRESENT
from lepton_passes.narrow import narrowed

__all__ = ["LowerHalfPrecision"]

FLOAT = ir.DataType.FLOAT
_TINY = 16
# A region, which kernels read in fp32; of other inputs ONNX itself says so.
_MEASURES = {"Resize": (1,)}
# A value that half precision moves across the edge between two steps moves by a whole step.
_ON_A_GRID = Tolerance(error=0.1, cosine=0.99)


class LowerHalfPrecision(LeptonPass):
    """Compute in half precision, islands in fp32.

    Args:
        dtype: FLOAT16 or BFLOAT16.
        islands: norms, Softmax and rotary embeddings stay in fp32 between casts.
    """

    name = "lower-half-precision"
    summary = "fp16 or bf16 arithmetic, with fp32 where accuracy asks"
    changes_numbers = True

    def __init__(self, dtype: ir.DataType = ir.DataType.FLOAT16, *, islands: bool = True) -> None:
        super().__init__()
        self._half = dtype
        self._islands = islands
        self.tolerances = dict.fromkeys(("fp32", "int8", "int4"), ROUNDING[dtype])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired, self.refusals = 0, []
        if any(body.nodes("QuantizeLinear") for body in bodies(model)):
            self.tolerances = dict.fromkeys(("fp32", "int8", "int4"), _ON_A_GRID)
        fill_types(model)
        self._were = _types(model)
        self._wants = Wants(model, islands=self._islands)
        self._states = wide_states(model)
        for body in bodies(model):
            self.rewrite(body)
        fill_types(model)
        removed = sweep(model)
        return ir.passes.PassResult(model, modified=bool(self.fired or removed))

    def rewrite(self, body: Body) -> None:
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        for value in body.graph.inputs:
            if _is_float(value) and self._enters_half(body, value):
                set_type(value, self._half)
        for node in body.nodes():
            if node.domain == LAYER_DOMAIN:
                self._call_layer(body, node)
            elif own_types(body.model, node):
                self._as_it_was(body, node)
            elif any(map(_is_float_kind, (*node.inputs, *node.outputs))):
                self._node(body, node)
        for index, value in enumerate(body.graph.outputs):
            self._leave(body, index, value)

    # -- nodes ------------------------------------------------------------------------------

    def _node(self, body: Body, node: ir.Node) -> None:
        if states_type(node):
            self._source(node)
            return
        dtype = self._type_for(body, node)
        for index, value in enumerate(node.inputs):
            wanted = dtype if _takes(node, index, dtype) else FLOAT
            if _is_float_kind(value) and value.dtype != wanted:
                node.replace_input_with(index, self._cast(body, node, value, wanted))
        for index, value in enumerate(node.outputs):
            if _is_float(value):
                set_type(value, dtype if gives(node, index, dtype) else FLOAT)
        if dtype == self._half:
            self.fire(body)

    def _as_it_was(self, body: Body, node: ir.Node) -> None:
        """Give a node, and the nodes in its branches, what they read in the types it came in."""
        for reader, index in places(node):
            value = reader.inputs[index]
            if not _is_float_kind(value):
                continue
            was = self._were.get(value)
            if was is not None and was != value.dtype:
                reader.replace_input_with(index, self._cast(body, node, value, was))

    def _source(self, node: ir.Node) -> None:
        """A Cast of integers to what its readers want; constants are cast where they are read."""
        out = node.outputs[0]
        if node.op_type != "Cast" or not _is_float(out) or self._wants.of(out) != {Want.HALF}:
            return
        node.attributes.add(ir.AttrInt64("to", int(self._half)))
        set_type(out, self._half)

    def _type_for(self, body: Body, node: ir.Node) -> ir.DataType:
        """The type a node computes in."""
        if self._wants.is_island(node) or self._vanishing(body, node):
            return FLOAT
        computed = [v for v in node.inputs if _is_float_kind(v)]
        computed = [v for v in computed if body.weights(v) is None and not _is_constant(v)]
        wide = all(v.dtype == FLOAT for v in computed)
        wanted = {want for out in node.outputs for want in self._wants.of(out)}
        if node.op_type in MOVES:
            if not computed:
                return FLOAT if wanted == {Want.ROTARY} else self._half
            return FLOAT if wide else self._half
        if node.op_type in POINTWISE and wide and Want.HALF not in wanted:
            return FLOAT
        return self._half

    def _vanishing(self, body: Body, node: ir.Node) -> bool:
        """Whether a constant of the node, such as an epsilon, would become zero."""
        for value in node.inputs:
            if not _is_float(value) or _size_of(value) > _TINY:
                continue
            array = body.constant(value)
            if array is not None and ((array != 0) & (_saturated(array, self._numpy) == 0)).any():
                least = float(np.abs(array[array != 0]).min())
                self.refuse(body, node, f"its constant {least:g} is zero in half precision")
                return True
        return False

    # -- borders ----------------------------------------------------------------------------

    def _enters_half(self, body: Body, value: ir.Value) -> bool:
        """Whether an input of the body arrives in half precision."""
        if body.function is None:
            return (value.name or "").startswith(PAST) and not is_wide(value)
        if body.weights(value) is not None or value in self._states:
            return False
        return self._wants.of(value) != {Want.ROTARY}

    def _call_layer(self, body: Body, call: ir.Node) -> None:
        function = body.model.functions[call.op_identifier()]
        for index, (inner, outer) in enumerate(zip(function.inputs, call.inputs, strict=False)):
            if inner.dtype is None or not _is_float_kind(outer):
                continue
            if outer.dtype != inner.dtype:
                call.replace_input_with(index, self._cast(body, call, outer, inner.dtype))
        for inner, outer in zip(function.outputs, call.outputs, strict=False):
            if inner.dtype is not None:
                set_type(outer, inner.dtype)

    def _leave(self, body: Body, index: int, value: ir.Value) -> None:
        """An output of a layer is half, one of the model fp32, except for caches and states."""
        if not _is_float_kind(value):
            return
        half = body.function is not None or (value.name or "").startswith(PRESENT)
        dtype = FLOAT if value in self._states or is_wide(value) or not half else self._half
        if value.dtype == dtype:
            return
        node = ir.node("Cast", [value], {"to": int(dtype)})
        body.graph.append(node)
        out = node.outputs[0]
        name, value.name = (
            value.name,
            f"{value.name}:wide" if dtype != FLOAT else f"{value.name}:half",
        )
        out.name, out.shape = name, value.shape
        set_type(out, dtype)
        body.graph.outputs[index] = out

    # -- values -----------------------------------------------------------------------------

    def _cast(self, body: Body, before: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (value, dtype)
        if key not in self._casts:
            made = self._made(body, before, value, dtype)
            made.shape = value.shape if made.shape is None else made.shape
            self._casts[key] = made
        return self._casts[key]

    def _made(self, body: Body, before: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if dtype != FLOAT and _is_constant(value):
            array = body.constant(value)
            if array is not None:
                return body.constant_node(before, _saturated(array, self._numpy))
        if dtype != FLOAT and body.weights(value):
            name = f"{value.name}:{'fp16' if dtype == ir.DataType.FLOAT16 else 'bf16'}"
            return body.derive([value], name, lambda t: narrowed(t[0], dtype))
        return body.emit(before, "Cast", [value], {"to": int(dtype)}).outputs[0]

    @property
    def _numpy(self) -> np.dtype:
        return np.dtype(self._half.numpy())


def _types(model: ir.Model) -> dict[ir.Value, ir.DataType | None]:
    """Of all values that a node may read."""
    graphs = [body.graph for body in bodies(model)]
    values = [v for graph in graphs for v in graph.inputs]
    values += [v for graph in graphs for node in graph for v in node.outputs]
    return {value: value.dtype for value in values}


def _takes(node: ir.Node, index: int, dtype: ir.DataType) -> bool:
    return index not in _MEASURES.get(node.op_type, ()) and takes(node, index, dtype)


def _is_float(value: ir.Value | None) -> TypeGuard[ir.Value]:
    return value is not None and value.dtype == FLOAT


def _is_float_kind(value: ir.Value | None) -> TypeGuard[ir.Value]:
    return value is not None and value.dtype in (FLOAT, *HALVES)


def _is_constant(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Constant"


def _size_of(value: ir.Value) -> int:
    if value.shape is None:
        return 0
    return int(np.prod([d if isinstance(d, int) else _TINY + 1 for d in value.shape]))


def _saturated(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The nearest finite values; an infinity stays one."""
    # bf16 too: the largest numbers of fp32, which masks are made of, round to infinity there.
    most = np.float32(ml_dtypes.finfo(dtype).max)
    return np.where(np.isinf(array), array, np.clip(array, -most, most)).astype(dtype)
