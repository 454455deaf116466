"""Attributes of a node as TensorRT's typed fields, and back.

A parser hands over the attributes that the creator declares, each with its own type; the rest take
their defaults. A plan hands back what ``Fields`` held: the same, and what a graph says by its
inputs (``dtype``, ``cache_dtype``, ``sinks``), so that the kernels are known before the shapes are.

Floats are float32 in a graph, in a field and here: rounded once more they would name another
variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError

__all__ = ["TRT_DTYPES", "Fields", "attributes_of", "declared", "variant_of"]

TRT_DTYPES = {
    "HALF": "float16",
    "BF16": "bfloat16",
    "FLOAT": "float32",
    "INT32": "int32",
    "INT8": "int8",
    "FP8": "float8_e4m3fn",
}
"""TensorRT's names of data types, and those of the spec."""

_TEXTS = ("dtype", "cache_dtype")
_ALIKE = ((0, 1, 2), (4, 5))  # inputs that are of one type


def declared(trt: Any) -> Any:
    """The attributes that a node may have, as an empty field each: what the parser looks for."""
    return Fields(trt, {attribute.name: [] for attribute in SPEC.attributes}).collection


def attributes_of(fields: Iterable[Any]) -> dict[str, Any]:
    """Names and values of a collection of fields.

    Raises:
        PluginError: a field that is neither an attribute nor one that a plan holds.
    """
    found: dict[str, Any] = {}
    for field in fields:
        data = np.asarray(field.data).reshape(-1)
        if field.name in _TEXTS:
            found[field.name] = data.tobytes().decode()
        elif field.name == "sinks":
            found[field.name] = bool(data[0])
        else:
            integer = SPEC.attribute(field.name).type == "int"
            found[field.name] = int(data[0]) if integer else float(np.float32(data[0]))
    return found


def variant_of(attributes: Mapping[str, Any], types: Sequence[str]) -> Variant:
    """The variant of a node with these attributes and inputs of these ``types`` (the spec's names).

    Raises:
        PluginError: there are no kernels for it.
    """
    least = sum(not tensor.optional for tensor in SPEC.inputs)
    if not least <= len(types) <= len(SPEC.inputs):
        raise PluginError(
            f"{SPEC.name} takes {least} inputs, or {len(SPEC.inputs)} with sinks",
            found=str(len(types)),
            available=[tensor.name for tensor in SPEC.inputs],
        )
    for tensor, name in zip(SPEC.inputs, types, strict=False):
        if name not in tensor.dtypes:
            what = f"{SPEC.name} takes no {tensor.name} of this type"
            raise PluginError(what, found=name, available=tensor.dtypes)
    for group in _ALIKE:
        if len({types[index] for index in group}) > 1:
            which = " and ".join(SPEC.inputs[index].name for index in group)
            found = ", ".join(types[index] for index in group)
            raise PluginError(f"{which} of {SPEC.name} are of one type", found=found)
    given = {
        name: float(np.float32(value)) if isinstance(value, float) else value
        for name, value in attributes.items()
    }
    sinks = len(types) > least
    return Variant.from_attributes(given, dtype=types[0], cache_dtype=types[4], sinks=sinks)


class Fields:
    """A collection of fields together with the memory that TensorRT reads them from."""

    def __init__(self, trt: Any, values: Mapping[str, Any]) -> None:
        self._memory = {name: _array(name, value) for name, value in values.items()}
        kinds = trt.PluginFieldType
        by_dtype = {"int32": kinds.INT32, "float32": kinds.FLOAT32, "int8": kinds.CHAR}
        self.collection = trt.PluginFieldCollection(
            [
                trt.PluginField(name, array, by_dtype[array.dtype.name])
                for name, array in self._memory.items()
            ]
        )


def _array(name: str, value: Any) -> Any:
    if name in _TEXTS:
        return np.frombuffer(value.encode(), np.int8)
    integer = name == "sinks" or SPEC.attribute(name).type == "int"
    return np.array(
        value if isinstance(value, list) else [value], "int32" if integer else "float32"
    )
