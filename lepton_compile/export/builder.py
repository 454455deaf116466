"""Append ONNX nodes to a graph or a function body, with names, types and shapes filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["Builder", "Parameter"]


@dataclass(frozen=True)
class Parameter:
    """A weight that the graph reads.

    Args:
        value: the graph value (an initializer, or an input of a function).
        name: path of the parameter or buffer, from the module that was traced.
        transform: "" as stored; "offset:1.0" one added; "transpose" axes swapped; "stack" and
            "stack-transpose" the matrices of a stack under each other, turned or not.
    """

    value: ir.Value
    name: str
    transform: str


class Builder:
    """Grows one node list. Equal constants become one ``Constant`` node."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.parameters: dict[str, Parameter] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._names: dict[str, int] = {}

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        at: str = "",
    ) -> ir.Value:
        """Append a node and return its output. ``at`` is the module path it came from."""
        return self.node(op_type, inputs, attributes, domain=domain, at=at).outputs[0]

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
        at: str = "",
    ) -> ir.Node:
        """Append a node and return it."""
        name = self.unique(f"{at}/{op_type}" if at else op_type)
        node = ir.node(
            op_type,
            list(inputs),
            dict(attributes or {}),
            domain=domain,
            num_outputs=outputs,
            name=name,
        )
        for index, value in enumerate(node.outputs):
            value.name = f"{name}.{index}" if outputs > 1 else f"{name}.out"
        self.nodes.append(node)
        return node

    def constant(self, array: np.ndarray) -> ir.Value:
        """A small constant; equal ones are shared."""
        array = np.array(array, order="C")  # ascontiguousarray would turn a scalar into a vector
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.tensor(array)
            value = self.op("Constant", [], {"value": tensor})
            value.name = self.unique("const")
            value.dtype, value.shape = tensor.dtype, ir.Shape(array.shape)
            value.const_value = tensor
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 constant."""
        return self.constant(np.array(values, dtype=np.int64))

    def parameter(
        self, name: str, shape: Sequence[int], dtype: ir.DataType, transform: str = ""
    ) -> ir.Value:
        """The value of a weight, created on first use."""
        label = name if not transform else f"{name}:{transform.split(':')[0]}"
        if label not in self.parameters:
            value = ir.Value(name=label, type=ir.TensorType(dtype), shape=ir.Shape(tuple(shape)))
            self.parameters[label] = Parameter(value, name, transform)
        return self.parameters[label].value

    def prune(self, outputs: Sequence[ir.Value]) -> None:
        """Drop the nodes that ``outputs`` do not depend on, and the weights they alone read."""
        needed = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.isdisjoint(node.outputs):
                for index in range(len(node.inputs)):
                    node.replace_input_with(index, None)
                continue
            needed.update(value for value in node.inputs if value is not None)
            kept.append(node)
        self.nodes = kept[::-1]
        self.parameters = {n: p for n, p in self.parameters.items() if p.value in needed}

    def unique(self, name: str) -> str:
        """``name``, with a counter when it is taken."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}_{count}" if count else name
