"""Parse an ONNX file, and say layer by layer what became of it."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from lepton_compile.engines.tensorrt.child.events import Failure
from lepton_compile.engines.tensorrt.child.observers import Log

if TYPE_CHECKING:
    import tensorrt as trt
else:
    from lepton_compile.engines.tensorrt.child.library import trt

__all__ = ["describe", "parse"]

# How the parser marks which ONNX node a layer comes from.
_MARK, _END = "[ONNX Layer: ", "]"
SHOWN_ERRORS = 6


def parse(
    builder: trt.Builder, log: Log, model: str, *, baked: bool = False
) -> tuple[trt.INetworkDefinition, Any]:
    """The network of an ONNX file, and the parser, which owns its weights and must outlive it.

    Raises:
        Failure: a node cannot be imported; where is the node, found the parser's own words.
    """
    network = builder.create_network(_flags() if baked else 0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(os.fspath(model)):
        raise _refused(parser, log)
    return network, parser


def _flags() -> int:
    """Plugins by their compiled kernels, where they might be there as Python, too."""
    return 1 << trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS.value


def describe(network: trt.INetworkDefinition) -> dict[str, Any]:
    """JSON of a network: ``layers``, ``counts`` by type, ``inputs``, ``outputs``."""
    layers = [_layer(network.get_layer(index)) for index in range(network.num_layers)]
    return {
        "layers": layers,
        "counts": dict(Counter(each["type"] for each in layers).most_common()),
        "inputs": [_io(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_io(network.get_output(index)) for index in range(network.num_outputs)],
    }


def _layer(layer: trt.ILayer) -> dict[str, Any]:
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    metadata = str(layer.metadata)
    start = metadata.rfind(_MARK)
    node = metadata[start + len(_MARK) : metadata.find(_END, start)] if start >= 0 else ""
    found: dict[str, Any] = {
        "name": layer.name,
        "type": layer.type.name,
        "precision": outputs[0].dtype.name if outputs else "",
        "inputs": [None if each is None else _tensor(each) for each in inputs],
        "outputs": [_tensor(each) for each in outputs],
    }
    return {**found, "node": node} if node and node != layer.name else found


def _tensor(tensor: trt.ITensor) -> list[Any]:
    return [tensor.name, tensor.dtype.name, _shape(tensor)]


def _io(tensor: trt.ITensor) -> dict[str, Any]:
    names = [tensor.get_dimension_name(index) for index in range(len(tensor.shape))]
    shape = [name or size for name, size in zip(names, _shape(tensor), strict=True)]
    return {
        "name": tensor.name,
        "dtype": tensor.dtype.name,
        "shape": shape,
        "is_shape": bool(tensor.is_shape_tensor),
    }


def _shape(tensor: trt.ITensor) -> list[int]:
    try:
        return list(tensor.shape)
    except ValueError:  # a rank that is not known has no length
        return []


def _refused(parser: trt.OnnxParser, log: Log) -> Failure:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        return Failure("the graph cannot be imported", found="\n".join(log.errors) or "no reason")
    first = errors[0]
    operator, name = first.node_operator(), first.node_name()
    words = [_words(each) for each in errors[:SHOWN_ERRORS]]
    words += log.errors[-2:] if not operator else []
    more = [f"and {len(errors) - SHOWN_ERRORS} more"] if len(errors) > SHOWN_ERRORS else []
    return Failure(
        f"the op {operator} cannot be imported" if operator else "the graph cannot be imported",
        where=name or None,
        found="\n".join([*dict.fromkeys(words), *more]),
        plugin="lugin not found" in "".join(words),
    )


def _words(error: Any) -> str:
    where = f"{error.node_name()} ({error.node_operator()}): " if error.node_operator() else ""
    return f"{where}{error.desc().strip()}"
