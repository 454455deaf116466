"""A lowered model as an ONNX file with its weights beside it, for every engine that reads ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from lepton_compile.engines.encoder_part import is_encoder_decoder, split
from lepton_compile.engines.weights_file import (
    INLINE_BYTES,
    WeightStore,
    write_weights,
)
from lepton_compile.errors import EngineError
from lepton_compile.progress import Step
from lepton_passes.lowering.ort.packing import STORAGE

__all__ = [
    "LAYER_KEY",
    "MODEL_FILE",
    "WEIGHTS_FILE",
    "encoder_among",
    "encoder_file",
    "flatten",
    "graph_sizes",
    "write_model",
]

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.bin"

# Metadata of a node that was inlined: the call it came from, such as ``model.layers.3``.
LAYER_KEY = "lepton.layer"

_PROTOBUF_LIMIT = 2 << 30


def write_model(
    model: ir.Model,
    folder: Path,
    step: Step | None = None,
    *,
    stem: str | None = None,
    store: WeightStore | None = None,
) -> list[Path]:
    """Inline every function, stream the weights to one file, write the model.

    An encoder-decoder is written as two, which read the same weights: the second is the encoder.

    Args:
        model: lowered to what the runtime has kernels for; its initializers become references
            to the weight file.
        folder: an existing folder of its own, or of engines that share their weights.
        stem: of the names of both files, in a folder with other engines.
        store: what those have written.

    Returns:
        The files of the model, itself first, then its encoder; its weights may lie in those of
        another.

    Raises:
        EngineError: the graph is too large for a protobuf file.
        OSError: the disk is full; whoever writes the artifact says which output that is.
    """
    from lepton_compile.export.external import held_in_memory  # torch comes with that package

    flatten(model)
    weights = folder / (f"{stem}.bin" if stem else WEIGHTS_FILE)
    used = write_weights(weights, _in_order_of_use(model.graph), step, store)
    for value in model.graph.initializers.values():  # which stay: what was shared is written
        if value.const_value is not None:
            value.const_value.metadata_props.pop(STORAGE, None)
    # What is too small for the weight file, or no initializer of the graph, still points at the
    # files of an ONNX source, which the artifact does not have.
    held_in_memory(model, lambda tensor: Path(tensor.path).parent != folder)
    target = folder / (f"{stem}.onnx" if stem else MODEL_FILE)
    graphs = {target: model}
    if is_encoder_decoder(model):
        encoder, decoder = split(model)
        graphs = {target: decoder, folder / encoder_file(stem): encoder}
    for path, graph in graphs.items():
        path.write_bytes(_bytes(graph))
    kept = {folder / name for name in used} | ({weights} if weights.exists() else set())
    return [*graphs, *sorted(kept)]


def graph_sizes(model: ir.Model, stem: str | None) -> dict[str, int]:
    """Bytes of each graph that :func:`write_model` would write, by name, of weights without values.

    The model is of no use afterwards. Small tensors are counted, never read.
    """
    flatten(model)
    inline = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None:
            size, name = tensor.nbytes, value.name or ""
            inline += size if size <= INLINE_BYTES else 0
            value.const_value = ir.ExternalTensor(
                WEIGHTS_FILE, 0, size, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
            )
    graphs = {f"{stem}.onnx" if stem else MODEL_FILE: model}
    if is_encoder_decoder(model):
        encoder, decoder = split(model)
        graphs = {encoder_file(stem): encoder, **dict.fromkeys(graphs, decoder)}
    return {name: len(_bytes(graph)) + inline // len(graphs) for name, graph in graphs.items()}


def encoder_file(stem: str | None) -> str:
    """What the graph is called that runs once for a text; ``stem`` as in :func:`write_model`."""
    return f"{stem}-encoder.onnx" if stem else "encoder.onnx"


def encoder_among(files: Sequence[Path], stem: str | None) -> str | None:
    """The name of that graph, where one was written."""
    return next((file.name for file in files if file.name == encoder_file(stem)), None)


def flatten(model: ir.Model) -> None:
    """Inline every function; each node gets a unique name that begins with its layer's."""
    for node in model.graph:
        if node.op_identifier() in model.functions and node.name:
            node.metadata_props[LAYER_KEY] = node.name
    InlinePass()(model)
    _name_nodes(model.graph)


def _name_nodes(graph: ir.Graph) -> None:
    """Unique node names: profiles and messages refer to them."""
    seen: dict[str, int] = {}
    for node in graph:
        layer = node.metadata_props.pop(LAYER_KEY, "")
        name = f"{layer}/{node.op_type}" if layer else node.name or node.op_type
        count = seen.get(name, 0)
        seen[name] = count + 1
        node.name = f"{name}_{count}" if count else name


def _in_order_of_use(graph: ir.Graph) -> list[ir.Value]:
    """The initializers as a run comes upon them.

    A node reads a quantized weight before its scales. Written in that order, rounding a weight
    gives both; scales that come first have it rounded twice.
    """
    weights = {id(value): value for value in graph.initializers.values()}
    used = (value for node in graph.all_nodes() for value in node.inputs if value is not None)
    first = {id(value): value for value in used if id(value) in weights}
    return list({**first, **weights}.values())


def _bytes(model: ir.Model) -> bytes:
    """Equal models give equal bytes: protobuf promises that only when asked."""
    proto = ir.serde.serialize_model(model)
    if proto.ByteSize() >= _PROTOBUF_LIMIT:
        raise EngineError("the graph without its weights is over 2 GiB, more than ONNX can hold")
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
