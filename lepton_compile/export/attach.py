"""Weights into the initializers of a graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import ExportError
from lepton_passes.stacks import flattened, transposed_each
from lepton_passes.tensors import StreamedTensor, cast, rows_of, transposed

from .model import Graph

__all__ = ["attach"]

_STACKS = {"stack": flattened, "stack-transpose": transposed_each}


def attach(graph: Graph, weights: Mapping[str, StreamedTensor]) -> None:
    """Give every initializer its tensor, in the element type of its value.

    Raises:
        ExportError: the graph reads a parameter that has no weight.
    """
    for name, value in graph.model.graph.initializers.items():
        if value.const_value is not None:
            continue
        parameter, transform = graph.parameters[name]
        if parameter not in weights:
            raise ExportError("the graph reads a weight that the checkpoint lacks", found=parameter)
        assert value.dtype is not None
        weight: ir.TensorProtocol = weights[parameter]
        if transform in _STACKS:
            weight = _STACKS[transform](weight)
        value.const_value = _transformed(cast(weight, value.dtype), transform, name)


def _transformed(tensor: ir.TensorProtocol, transform: str, name: str) -> ir.TensorProtocol:
    kind, _, amount = transform.partition(":")
    if kind == "transpose":
        return transposed(tensor)
    if kind == "offset":
        offset = np.float32(amount)
        return StreamedTensor(
            name,
            tensor.dtype,
            tensor.shape.numpy(),
            lambda start, stop: rows_of(tensor, start, stop) + offset,
        )
    return tensor
