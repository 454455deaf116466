"""Element types of all values of a model, inferred forward from its inputs and weights.

Passes that make values seldom say their type. A pass that decides by types calls
:func:`fill_types` first: one walk, which enters a layer function once, with the types of its first
call. One that needs a few types, and leaves the graph as it is, calls :func:`type_of`.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from lepton_passes.body import DIALECT, LAYER_DOMAIN, Body, branches
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["HALVES", "fill_types", "gives", "set_type", "states_type", "takes", "type_of"]

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""The types of half precision."""

# fmt: off
_BOOL = frozenset({
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not",
    "Or", "Xor",
})
# fmt: on
# What they give is told by graphs inside of them.
_WITH_GRAPHS = frozenset(["If", "Loop", "Scan"])
_OPSET = 24  # of the dialect
_INT64 = frozenset(["Shape", "Size", "ArgMax", "ArgMin", "NonZero"])
# Ops whose output has the type of another input than the first.
_TYPED_BY = {
    **dict.fromkeys(("Where", "DequantizeLinear", "CastLike", "NewMask"), 1),
    **dict.fromkeys(("OneHot", "QuantizeLinear"), 2),
}
_RANDOM = frozenset({"Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike"})
_STATING = _RANDOM | {
    *("Cast", "DequantizeLinear", "QuantizeLinear", "RandomNormal", "RandomUniform"),
}
_STATED = ("to", "output_dtype", "dtype")
_NORMS_BY_WEIGHT = frozenset(["RMSNormalization"])
_GATHERED = frozenset(["GatherBlockQuantized"])
_WITH_STATISTICS = frozenset(
    ["LayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"]
)


def fill_types(model: ir.Model) -> None:
    """Give every value of the main graph and of the layer functions its element type.

    What is there already is overwritten by what its node makes, so types stay right after a pass
    that changed some of them. A value whose type cannot be known keeps what it has.
    """
    done: set[ir.OperatorIdentifier] = set()
    _walk(model, model.graph, done)


def type_of(body: Body, value: ir.Value | None) -> ir.DataType | None:
    """Element type of one value, from the nodes that lead to it where it does not say."""
    while value is not None and value.dtype is None:
        node = value.producer()
        if node is None:
            outer = body.arguments(value) or [value]
            return outer[0].dtype
        made = _made(node, list(node.outputs).index(value))
        if made is not None or node.op_type in _WITH_GRAPHS:
            return made
        value = next(iter(node.inputs[_TYPED_BY.get(node.op_type, 0) :]), None)
    return value.dtype if value is not None else None


def set_type(value: ir.Value, dtype: ir.DataType) -> None:
    """Set the element type of a value; its shape stays."""
    value.type = ir.TensorType(dtype)


def states_type(node: ir.Node) -> bool:
    """Whether the type of what a node makes is its own word, and not that of what it reads."""
    if node.op_type in ("Cast", "Constant", "ConstantOfShape", "RandomNormal", "RandomUniform"):
        return True
    return node.op_type in _RANDOM and node.attributes.get_int("dtype", 0) != 0


def takes(node: ir.Node, index: int, dtype: ir.DataType, opset: int = _OPSET) -> bool:
    """Whether ONNX lets an input of a node have a type; of other ops nothing is known."""
    schema = _schema(node, opset)
    return schema is None or _allows(schema.inputs, index, dtype)


def gives(node: ir.Node, index: int, dtype: ir.DataType) -> bool:
    """The same of an output."""
    if _is_statistic(node, index):
        return dtype == ir.DataType.FLOAT
    schema = _schema(node, _OPSET)
    return schema is None or _allows(schema.outputs, index, dtype)


def _schema(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    if node.domain:
        return None
    try:
        return onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return None


def _allows(
    formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int, dtype: ir.DataType
) -> bool:
    if not formal:
        return True
    # What an op takes any number of stands last.
    types: set[str] = formal[min(index, len(formal) - 1)].types
    return f"tensor({dtype.name.lower()})" in types


def _walk(model: ir.Model, graph: ir.Graph, done: set[ir.OperatorIdentifier]) -> None:
    for node in graph:
        function = model.functions.get(node.op_identifier())
        if function is not None and function.domain != DIALECT:
            _call(model, function, node, done)
            continue
        inside = _branches(model, node, done)
        for index, value in enumerate(node.outputs):
            dtype = inside[index] if inside else _made(node, index)
            # A sequence of tensors is none.
            if dtype is not None and isinstance(value.type, ir.TensorType | None):
                set_type(value, dtype)


def _branches(
    model: ir.Model, node: ir.Node, done: set[ir.OperatorIdentifier]
) -> list[ir.DataType | None]:
    """What a node with graphs gives, by one of them, once all are walked; empty without any."""
    given: list[ir.DataType | None] = []
    for graph in branches(node):
        _walk(model, graph, done)
        # The first that a Loop's gives says whether it goes on.
        outputs = graph.outputs[1:] if node.op_type == "Loop" else graph.outputs
        given = [value.dtype for value in outputs]
    more = len(node.outputs) - len(given)
    return [*given, *[None] * more] if given else []


def _call(
    model: ir.Model, function: ir.Function, call: ir.Node, done: set[ir.OperatorIdentifier]
) -> None:
    """A layer's types are those of its first call; another function may be called with others."""
    if function.identifier() not in done:
        if function.domain == LAYER_DOMAIN:
            done.add(function.identifier())
        for inner, outer in zip(function.inputs, call.inputs, strict=False):
            if outer is not None and outer.dtype is not None:
                set_type(inner, outer.dtype)
        _walk(model, function.graph, done)
    for outer, inner in zip(call.outputs, function.outputs, strict=False):
        if inner.dtype is not None:
            set_type(outer, inner.dtype)


def _made(node: ir.Node, index: int) -> ir.DataType | None:
    """Type of output ``index`` of a node."""
    op = node.op_type
    refs = {name for name, attribute in node.attributes.items() if attribute.is_ref()}
    if refs and (op == "Constant" or refs & set(_STATED)):
        return None  # each call of the function says it
    if op == "Constant":
        tensor = ir.convenience.get_const_tensor(node.outputs[0])
        return tensor.dtype if tensor is not None else None
    if op in _WITH_GRAPHS:
        return None
    if op in _BOOL:
        return ir.DataType.BOOL
    if op in _INT64 or (op == "TopK" and index == 1):
        return ir.DataType.INT64
    if _is_statistic(node, index):
        return ir.DataType.FLOAT
    if node.domain == CPU_DOMAIN:  # whatever its weights are packed in
        past = node.inputs[index + 2 : index + 3] if op == "GroupQueryAttention" and index else ()
        return _first_known(past) or ir.DataType.FLOAT
    named = _named(node)
    if named is not None:
        return named
    if op in _NORMS_BY_WEIGHT:
        return _first_known(node.inputs[1:2]) or _first_known(node.inputs)
    if op in _GATHERED:
        return _first_known(node.inputs[2:3])
    if op in ("CachedAttention", "MarkedAttention") and index:
        # The present of a cache has the type of its past.
        return _first_known(node.inputs[index + 3 : index + 4])
    if op == "QuantizeLinear" and len(node.inputs) < 3:
        return ir.DataType.UINT8
    return _first_known(node.inputs[_TYPED_BY.get(op, 0) :])


def _is_statistic(node: ir.Node, index: int) -> bool:
    """Whether an output is a mean or a deviation, which are fp32 whatever is normalized."""
    return node.op_type in _WITH_STATISTICS and index in (1, 2)


def _named(node: ir.Node) -> ir.DataType | None:
    """The type that an attribute states."""
    for name in _STATED:
        if node.op_type in _STATING and (stated := node.attributes.get_int(name, 0)):
            return ir.DataType(stated)
    if node.op_type in ("RandomNormal", "RandomUniform"):
        return ir.DataType.FLOAT
    if node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        return value.as_tensor().dtype if value is not None else ir.DataType.FLOAT
    return None


def _first_known(values: Sequence[ir.Value | None]) -> ir.DataType | None:
    return next((v.dtype for v in values if v is not None and v.dtype is not None), None)
