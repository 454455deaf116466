"""What a graph without values says of its engine: bytes, ops, and estimates of memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from lepton_compile.api.memory import CHECKED, FP32
from lepton_compile.engines.model_file import WEIGHTS_FILE, graph_sizes
from lepton_compile.engines.ort_cpu.kernels import uses_library
from lepton_compile.engines.weights_file import INLINE_BYTES, aligned
from lepton_compile.recipe.schema import TENSORRT
from lepton_passes.lowering.ort.packing import STORAGE
from lepton_plugins.native import LIBRARY

__all__ = [
    "Estimate",
    "check_estimate",
    "files_of",
    "imported_bytes",
    "ops_of",
    "peak_of",
    "sample_peak",
    "search_peak",
    "verify_estimate",
]

# What capture and the libraries hold, and what one weight in flight costs; measured on Linux.
BASE_MEMORY = 480 << 20
IN_FLIGHT = 220 << 20
# Running a text, with its tokenizer and what layers read, as measured with Gemma 3 270M; and the
# share of a word of its vocabulary.
TEXT_MEMORY = 400 << 20
WORD_MEMORY = TEXT_MEMORY >> 18
# TensorRT: what its builder holds for a parameter beside the plan, and a profile's kernels in a
# plan; from TensorRT-RTX 1.7 with MiniLM in fp16 and Gemma 3 270M in bf16 and int4.
BUILDER_BYTES = 2.7
KERNEL_SOURCE = 10_000_000
# What a build holds for a byte of an ONNX file that is parsed, and once more for its digests.
PARSED = 4
# The library of our own CPU kernels, as a compiler of 2023 makes it.
LIBRARY_BYTES = 690_000
# One core of a server of 2023, MiniLM and Gemma 3 270M: parameters checked in a second, and
# parameters times tokens compared in one.
CHECKED_PER_SECOND = 10_000_000
COMPARED_PER_SECOND = 11_000_000_000


@dataclass(frozen=True)
class Estimate:
    """Wall time and highest memory of a stage, both rough."""

    seconds: float
    peak_memory_bytes: int


def check_estimate(parameters: int, engines: int) -> Estimate:
    """Of the per-pass check: the fp32 graph runs, from a scratch file, after each pass."""
    seconds = engines * parameters / CHECKED_PER_SECOND
    return Estimate(seconds, BASE_MEMORY + IN_FLIGHT + int(CHECKED * parameters))


def verify_estimate(
    parameters: int,
    tokens: int,
    engine_bytes: Sequence[int],
    vocabulary: int,
    loaded: int,
    mapped: int,
    words: int,
    behind: int,
) -> Estimate:
    """Of the verification: one engine after the other, and the fp32 PyTorch model.

    Args:
        vocabulary: words of a decoder, whose engine is closed while layers of that model are held;
            0 for other models.
        loaded: weights of that model that are held at a time: more than ``parameters`` where some
            take no part, such as those that see, less where one layer is held after the other.
        mapped: bytes of weight files that are held until it is loaded.
        words: scores of words that an encoder's batch of texts holds, several times over.
        behind: numbers that are held beside a decoder's engine, its layers gone.
    """
    seconds = len(engine_bytes) * parameters * tokens / COMPARED_PER_SECOND
    model, engine = FP32 * loaded, max(engine_bytes)
    held = model + engine + max(mapped, FP32 * words)
    if vocabulary:
        held = max(model + mapped, FP32 * behind + engine)
    return Estimate(seconds, BASE_MEMORY + IN_FLIGHT + WORD_MEMORY * vocabulary + held)


def sample_peak(model: ir.Model, matrices: int) -> int:
    """Bytes held while a sample runs through the neutral graph: its fp32 weights but for tables,
    whose rows are looked up, and ``matrices`` of what layers read."""
    weights = [
        value.const_value.size
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not any(node.op_type == "Gather" and index == 0 for node, index in value.uses())
    ]
    return BASE_MEMORY + IN_FLIGHT + TEXT_MEMORY + FP32 * sum(weights) + matrices


def search_peak(parameters: int, scores: int, mapped: int) -> int:
    """Bytes held while bits are chosen: the fp32 PyTorch model, and what is ``mapped`` to load it,
    then ``scores`` numbers that it gives for a text, and as many derivatives."""
    beside = max(mapped, 2 * FP32 * scores)
    return BASE_MEMORY + IN_FLIGHT + TEXT_MEMORY + FP32 * parameters + beside


def files_of(
    folder: str, target: str, model: ir.Model, stem: str | None, profiles: int
) -> dict[str, int]:
    """Bytes of each file of an engine in ``folder``; an upper bound where other engines lie there,
    whose weights it may share. Its files are named by ``stem`` then; ``profiles`` is how many a
    plan has. The model is of no use afterwards."""
    weights = _weights(model)
    if target in TENSORRT:
        return {f"{folder}/model.plan": weights + profiles * KERNEL_SOURCE}
    library = {LIBRARY: LIBRARY_BYTES} if uses_library(model) else {}
    stored = {f"{stem}.bin" if stem else WEIGHTS_FILE: weights}
    names = {**graph_sizes(model, stem), **stored, **library}
    return {f"{folder}/{name}": size for name, size in names.items()}


def peak_of(target: str, model: ir.Model, parameters: int) -> int:
    """Bytes that building holds at its highest: weights are streamed, but not by TensorRT."""
    if target in TENSORRT:
        return BASE_MEMORY + _weights(model) + int(BUILDER_BYTES * parameters)
    largest = max((tensor.size for tensor in _tensors(model)), default=0)
    # A small model has no weight that fills what may be in flight.
    return BASE_MEMORY + min(IN_FLIGHT, FP32 * largest) + largest // 32 * 4


def imported_bytes(file: Path) -> int:
    """Bytes held of an ONNX file while it is compiled: large weights stay where they are."""
    from lepton_compile.export.onnx_embedded import parsed_bytes

    return PARSED * parsed_bytes(file)


def ops_of(model: ir.Model) -> dict[str, int]:
    """Ops of the lowered graph, those of a layer counted once for each call."""
    counts: dict[str, int] = {}

    def walk(graph: ir.Graph, times: int) -> None:
        for node in graph:
            inner = model.functions.get(node.op_identifier())
            if inner is not None:
                walk(inner.graph, times)
            else:
                name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                counts[name] = counts.get(name, 0) + times

    walk(model.graph, 1)
    return dict(sorted(counts.items()))


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    found = (value.const_value for value in model.graph.initializers.values())
    return [tensor for tensor in found if tensor is not None]


def _weights(model: ir.Model) -> int:
    """Bytes of the weight file."""
    stored: dict[object, int] = {}
    for tensor in _tensors(model):
        stored[tensor.metadata_props.get(STORAGE) or id(tensor)] = tensor.nbytes
    end = 0
    for size in stored.values():
        if size > INLINE_BYTES:
            end = aligned(end, size) + size
    return end
