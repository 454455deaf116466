"""The op's nodes in a graph, checked before a parser sees them.

The parser of TensorRT drops an attribute that the plugin does not declare without a word, and an
input that is left empty fails with a null pointer. Both are refused here, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.trt_fields import variant_of
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["variant_of_node", "variants_in"]

_DTYPES = {
    "FLOAT16": "float16",
    "BFLOAT16": "bfloat16",
    "FLOAT": "float32",
    "INT32": "int32",
    "INT8": "int8",
    "FLOAT8E4M3FN": "float8_e4m3fn",
}


def variants_in(model: ir.Model) -> tuple[Variant, ...]:
    """The kernels that ``model`` needs: one variant for all nodes that are alike, in their order.

    Raises:
        PluginError: a node that there are no kernels for, by its name.
    """
    found = {}
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            if (node.domain, node.op_type) == (SPEC.namespace, SPEC.name):
                variant = variant_of_node(node)
                found[variant.key] = variant
    return tuple(found.values())


def variant_of_node(node: ir.Node) -> Variant:
    """The kernels that ``node`` needs.

    Raises:
        PluginError: there are none, or it is not written as TensorRT's parser wants it.
    """
    where = node.name or SPEC.name
    try:
        return variant_of(_attributes(node), [_type(node, at) for at in range(len(node.inputs))])
    except PluginError as error:
        raise PluginError(
            error.message,
            where=where,
            found=error.found,
            available=error.available,
            hint=error.hint,
        ) from None


def _attributes(node: ir.Node) -> dict[str, Any]:
    values = {}
    for attribute in node.attributes.values():
        wanted = SPEC.attribute(attribute.name).type
        if attribute.type.name != wanted.upper():
            what = f"the attribute {attribute.name} is not of type {wanted}"
            raise PluginError(what, found=attribute.type.name.lower())
        values[attribute.name] = attribute.value
    return values


def _type(node: ir.Node, at: int) -> str:
    value = node.inputs[at]
    name = SPEC.inputs[at].name if at < len(SPEC.inputs) else f"input {at}"
    if value is None:
        raise PluginError(f"{name} is left empty", hint="an input that is not there is left out")
    if value.dtype is None:
        raise PluginError(f"the type of {name} is not known", found=value.name)
    return _DTYPES.get(value.dtype.name, value.dtype.name)
