"""The summary of an ONNX file. Weights are not read, in the file or outside of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lepton_compile.cli.onnxfile import walk
from lepton_compile.cli.onnxfile.weights import (
    ExternalFile,
    QuantizedWeights,
    dtype_name,
    external_files,
    quantized,
    size,
)
from lepton_compile.errors import SourceError

__all__ = ["BY_NAME", "ModelSummary", "Value", "summarize"]

BY_NAME = "by name"
WEIGHTS_ARE_INPUTS = 3
"""Up to this IR version every initializer is an input."""
FEW_BYTES = 65
LAYER = re.compile(r"(?:^|[./])(?:layers?|h|blocks?|transformer_layers)[./](\d+)(?:[./]|$)")


@dataclass(frozen=True)
class Value:
    """An input or output: its type, and its shape with symbolic dimensions by name.

    ``default`` is what an input holds that may be left out; None where it may not.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    default: str | None = None


@dataclass(frozen=True)
class ModelSummary:
    """What an ONNX file is made of.

    Attributes:
        path: the file.
        bytes: its own size.
        ir_version: ONNX IR version.
        producer: the tool that wrote it.
        opsets: version by domain; the standard domain is ``ai.onnx``.
        inputs, outputs: of the graph; inputs that only carry weights are left out, those with a
            small default are optional.
        ops: domain -> op -> count, layers unrolled.
        layers: kind of layer -> how often it is called; where layers are not functions, ``by name``
            -> how many numbers of layers stand in names.
        functions: functions other than layers, ``domain::name``.
        weights: type -> number of tensors and bytes.
        quantized: weights of fewer bits, by how they are stored.
        files: files the weights lie in.
    """

    path: str
    bytes: int
    ir_version: int
    producer: str
    opsets: dict[str, int]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    ops: dict[str, dict[str, int]]
    layers: dict[str, int]
    functions: tuple[str, ...]
    weights: dict[str, tuple[int, int]]
    quantized: tuple[QuantizedWeights, ...]
    files: tuple[ExternalFile, ...]

    def as_dict(self) -> dict[str, object]:
        """The summary as JSON-ready data."""
        data = asdict(self)
        for side in ("inputs", "outputs"):
            data[side] = [
                {k: v for k, v in value.items() if k != "default" or v is not None}
                for value in data[side]
            ]
        data["weights"] = {n: {"count": c, "bytes": b} for n, (c, b) in self.weights.items()}
        return data


def summarize(path: Path) -> ModelSummary:
    """Reads the graph of an ONNX file.

    Raises:
        SourceError: it cannot be read, or is not ONNX.
    """
    model = _read(path)
    carried = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors = list(model.graph.initializer)
    constants = [
        a.t
        for node, _ in walk.nodes(model)
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    ]
    return ModelSummary(
        path=str(path),
        bytes=path.stat().st_size,
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=tuple(_inputs(model, carried)),
        outputs=tuple(_value(v) for v in model.graph.output),
        ops=_ops(model),
        layers=_layers(model),
        functions=tuple(
            f"{f.domain}::{f.name}" for f in model.functions if f.domain != walk.LAYERS
        ),
        weights=_weights(tensors),
        quantized=quantized(walk.nodes(model)),
        files=tuple(_elsewhere(path, external_files([*tensors, *constants], path.parent))),
    )


def _read(path: Path) -> Any:
    from lepton_compile.export.onnx_embedded import load_proto

    try:
        model = load_proto(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's own, which has no common base with Python's
        raise SourceError("this file is not an ONNX model", found=str(path)) from error
    if not model.ir_version or not (model.graph.node or model.graph.output):
        raise SourceError("this file is not an ONNX model", found=f"{path}: no graph in it")
    return model


def _elsewhere(path: Path, files: Iterable[ExternalFile]) -> Iterator[ExternalFile]:
    """Without the model's own file, where what stands in it is left."""
    for file in files:
        if file.name != path.name or file.found is None or file.needed > file.found:
            yield file


def _inputs(model: Any, carried: Mapping[str, Any]) -> Iterator[Value]:
    """What a caller gives, and what a caller may give: a number or a few with a default. Old files
    list all weights among their inputs."""
    from onnx import numpy_helper

    for value in model.graph.input:
        tensor = carried.get(value.name)
        if tensor is None:
            yield _value(value)
        elif model.ir_version > WEIGHTS_ARE_INPUTS and len(tensor.raw_data) in range(1, FEW_BYTES):
            default = numpy_helper.to_array(tensor).tolist()
            yield replace(_value(value), default=str(default))


def _value(value: Any) -> Value:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Value(value.name, str(value.type.WhichOneof("value")), None)
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        )
    return Value(value.name, dtype_name(tensor.elem_type).lower(), shape)


def _ops(model: Any) -> dict[str, dict[str, int]]:
    counts = Counter((node.domain or "ai.onnx", node.op_type) for node, _ in walk.nodes(model))
    ops: dict[str, dict[str, int]] = {}
    for (domain, op), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        ops.setdefault(domain, {})[op] = count
    return ops


def _layers(model: Any) -> dict[str, int]:
    calls = Counter(node.op_type for node in model.graph.node if node.domain == walk.LAYERS)
    if calls:
        return dict(sorted(calls.items()))
    named = [*(n.name for n in model.graph.node), *(t.name for t in model.graph.initializer)]
    numbers = {match[1] for name in named if (match := LAYER.search(name))}
    return {BY_NAME: len(numbers)} if numbers else {}


def _weights(tensors: list[Any]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for tensor in tensors:
        name = dtype_name(tensor.data_type).lower()
        count, total = found.get(name, (0, 0))
        found[name] = (count + 1, total + size(tensor))
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))
