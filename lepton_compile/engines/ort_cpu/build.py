"""Write a lowered model as an engine for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from lepton_compile.engines.contract import BuiltEngine, EngineJob, Step
from lepton_compile.engines.weights_file import write_weights
from lepton_compile.errors import EngineError

__all__ = ["MODEL_FILE", "REQUIRES", "WEIGHTS_FILE", "build", "write_model"]

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.bin"
REQUIRES = {"onnxruntime": ">=1.30"}
_PROTOBUF_LIMIT = 2 << 30


def build(job: EngineJob) -> BuiltEngine:
    """The engine is the graph itself, in the form the runtime has kernels for.

    Raises:
        EngineError: the graph is too large for a protobuf file, or the disk is full.
    """
    write_model(job.model, job.folder, job.step)
    return BuiltEngine(MODEL_FILE, REQUIRES)


def write_model(model: ir.Model, folder: Path, step: Step | None = None) -> list[Path]:
    """Inline every function, stream the weights to one file, write the model.

    Args:
        model: lowered to what ONNX Runtime has kernels for; its initializers become references
            to the weight file.
        folder: an existing folder of its own.

    Returns:
        The files written, model first.

    Raises:
        EngineError: the graph is too large for a protobuf file, or the disk is full.
    """
    InlinePass()(model)
    _name_nodes(model.graph)
    weights = folder / WEIGHTS_FILE
    write_weights(weights, list(model.graph.initializers.values()), step)
    proto = ir.serde.serialize_model(model)
    if proto.ByteSize() >= _PROTOBUF_LIMIT:
        raise EngineError("the graph without its weights is over 2 GiB, more than ONNX can hold")
    target = folder / MODEL_FILE
    try:
        target.write_bytes(_bytes(proto))
    except OSError as error:
        raise EngineError(
            "the model could not be written", where=str(target), found=error.strerror or str(error)
        ) from error
    return [target, weights]


def _bytes(proto: onnx.ModelProto) -> bytes:
    """Equal models give equal bytes: protobuf promises that only when asked."""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _name_nodes(graph: ir.Graph) -> None:
    """Unique node names: profiles and messages refer to them."""
    seen: dict[str, int] = {}
    for node in graph:
        name = node.name or node.op_type
        count = seen.get(name, 0)
        seen[name] = count + 1
        node.name = f"{name}_{count}" if count else name
