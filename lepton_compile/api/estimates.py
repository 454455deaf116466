"""What a graph without values says of its engine: bytes, ops, and estimates of memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from lepton_compile.api.memory import CHECKED, FP32
from lepton_compile.engines.weights_file import INLINE_BYTES, PAGE, STORAGE_KEY

__all__ = ["Estimate", "check_estimate", "files_of", "ops_of", "peak_of", "verify_estimate"]

# What capture and the libraries hold, and what one weight in flight costs; measured on Linux.
BASE_MEMORY = 480 << 20
IN_FLIGHT = 220 << 20
# TensorRT: what its builder holds for a parameter beside the plan, and a profile's kernels in a
# plan; from TensorRT-RTX 1.7 with MiniLM in fp16 and Gemma 3 270M in bf16 and int4.
PLANS = ("trt-rtx", "trt")
BUILDER_BYTES = 2.7
KERNEL_SOURCE = 10_000_000
NODE_BYTES = 600
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
    return Estimate(seconds, BASE_MEMORY + IN_FLIGHT + CHECKED * parameters)


def verify_estimate(parameters: int, tokens: int, engine_bytes: Sequence[int]) -> Estimate:
    """Of the verification: the fp32 PyTorch model beside one engine after the other."""
    seconds = len(engine_bytes) * parameters * tokens / COMPARED_PER_SECOND
    held = FP32 * parameters + max(engine_bytes)
    return Estimate(seconds, BASE_MEMORY + IN_FLIGHT + held)


def files_of(
    folder: str, target: str, model: ir.Model, stem: str | None = None, profiles: int = 1
) -> dict[str, int]:
    """Bytes of each file of an engine in ``folder``; at most so many where others lie there, whose
    weights it may share. ``stem`` is of its names there, ``profiles`` how many a plan has."""
    weights, graph = _sizes(model)
    if target in PLANS:
        return {f"{folder}/model.plan": weights + profiles * KERNEL_SOURCE}
    if stem is not None:
        return {f"{folder}/{stem}.onnx": graph, f"{folder}/{stem}.bin": weights}
    return {f"{folder}/model.onnx": graph, f"{folder}/weights.bin": weights}


def peak_of(target: str, model: ir.Model, parameters: int) -> int:
    """Bytes that building holds at its highest: weights are streamed, but not by TensorRT."""
    if target in PLANS:
        return BASE_MEMORY + _sizes(model)[0] + int(BUILDER_BYTES * parameters)
    largest = max((tensor.size for tensor in _tensors(model)), default=0)
    return BASE_MEMORY + IN_FLIGHT + largest // 32 * 4


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


def _sizes(model: ir.Model) -> tuple[int, int]:
    """(bytes of the weight file, rough bytes of the graph)."""
    stored: dict[object, int] = {}
    for tensor in _tensors(model):
        stored[tensor.metadata_props.get(STORAGE_KEY) or id(tensor)] = tensor.nbytes
    inline = sum(size for size in stored.values() if size <= INLINE_BYTES)
    pages = (-(-size // PAGE) * PAGE for size in stored.values() if size >= PAGE)
    between = sum(size for size in stored.values() if INLINE_BYTES < size < PAGE)
    return sum(pages) + between, NODE_BYTES * sum(ops_of(model).values()) + inline
