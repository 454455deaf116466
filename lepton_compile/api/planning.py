"""Predict a build without reading a weight.

The graph is captured and lowered for real, on weights that have a shape and no values. What the
build would write is then a matter of adding up; only time and memory are estimates.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import onnx_ir as ir

from lepton_compile.api.building import ENGINES, pooling_of, task_of
from lepton_compile.api.fitting import hessians_for
from lepton_compile.engines.weights_file import STORAGE_KEY
from lepton_compile.errors import ExportError
from lepton_compile.export.export import capture
from lepton_compile.export.source import resolve
from lepton_compile.pipeline import passes_for, precision_of, rounds_activations, run
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_passes.quant._calibration import unseen
from lepton_passes.tensors import StreamedTensor

__all__ = ["Plan", "make_plan"]

# What capture and the libraries hold, and what one weight in flight costs; measured on Linux.
BASE_MEMORY = 480 << 20
IN_FLIGHT = 220 << 20
# TensorRT: what its builder holds for a parameter beside the plan, and the kernels in a plan; from
# TensorRT-RTX 1.7 with MiniLM in fp16 and Gemma 3 270M in bf16 and int4.
PLANS = ("trt-rtx", "trt")
BUILDER_BYTES = 2.7
KERNEL_SOURCE = 20_000_000
# Parameters quantized and written in a second, one core of a server of 2023.
PARAMETERS_PER_SECOND = 45_000_000


@dataclass(frozen=True)
class Plan:
    """What a build would do.

    Attributes:
        layers: how the layers are captured, such as ``"18 layers, 2 kinds traced once each"``.
        files: bytes of each file of the engine.
        peak_memory: bytes, estimated, of a build without check and verification.
        seconds: estimated wall time of such a build; capture was measured, the rest is a rate.
        ops: how often each op occurs in the lowered graph.
        missing: ops that the target has no kernel for.
        refusals: what passes would decline, as ``pass: reason``.
    """

    model: str
    task: str
    target: str
    precision: str
    architecture: str
    parameters: int
    how: str
    layers: str
    files: dict[str, int]
    peak_memory: int
    seconds: float
    passes: dict[str, int]
    ops: dict[str, int]
    missing: list[str]
    refusals: list[str]
    notes: list[str]

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def make_plan(recipe: Recipe, progress: Progress) -> Plan:
    """Capture and lower on shapes alone.

    Raises:
        SourceError, ExportError: as a build would.
    """
    start = time.perf_counter()
    progress.stage("resolve", recipe.model)
    source = resolve(recipe.model, recipe.base, recipe.trust_remote_code)
    progress.stage("capture")
    if source.kind == "onnx":
        raise ExportError("an ONNX file is not planned: nothing is captured from it")
    task = recipe.task or task_of(source)
    wanted = recipe.shapes.sequence
    exported = capture(
        source,
        task,
        length=wanted[1] if wanted else None,
        pooling=pooling_of(recipe, source, task),
        progress=progress.step,
    )
    _fill(exported.model)
    captured = time.perf_counter() - start
    progress.stage("passes")
    target = recipe.target[0]
    rounded = rounds_activations(recipe, target, decoder=task == "text-generation")
    passes = passes_for(
        recipe,
        target,
        length=exported.length,
        config=source.config(),
        hessians=hessians_for(recipe, exported.model, source, exported, progress.step),
        measure=unseen if rounded else None,
    )
    report = run(exported.model, passes, progress=progress.step)
    ops = _ops(exported.model)
    layers = len(exported.caches) or sum(
        1 for n in exported.model.graph if n.domain == "ai.lepton.layer"
    )
    return Plan(
        model=recipe.model,
        task=task,
        target=target,
        precision=precision_of(recipe, target, source.config()),
        architecture=exported.architecture,
        parameters=exported.parameters,
        how=exported.how,
        layers=_layers(exported.how, layers, exported.kinds),
        files=_files(f"{ENGINES}/{target}", exported.model),
        peak_memory=_peak(target, exported.model, exported.parameters),
        seconds=captured + exported.parameters / PARAMETERS_PER_SECOND,
        passes={p.name: p.fired for p in report.passes if p.fired},
        ops=ops,
        missing=sorted({r.reason for r in report.refusals(f"legal-{target}")}),
        refusals=sorted({f"{p.name}: {r.reason}" for p in report.passes for r in p.refusals}),
        notes=exported.notes,
    )


def _fill(model: ir.Model) -> None:
    """Tensors of the right shape whose values must not be asked for."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            assert value.dtype is not None
            assert value.shape is not None
            value.const_value = StreamedTensor(name, value.dtype, value.shape.numpy(), _no_values)


def _no_values(start: int, stop: int) -> np.ndarray:
    raise ExportError("a plan has no weights to read")


def _layers(how: str, layers: int, kinds: int) -> str:
    if how != "stamped":
        return "traced whole" if how == "whole" else "traced whole, attention not captured"
    return f"{layers} layers, {kinds} kind{'s' if kinds > 1 else ''} traced once each"


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    found = (v.const_value for v in model.graph.initializers.values())
    return [tensor for tensor in found if tensor is not None]


def _files(folder: str, model: ir.Model) -> dict[str, int]:
    """Bytes of each file of the engine."""
    weights, graph = _sizes(model)
    if folder.endswith(PLANS):
        return {f"{folder}/model.plan": weights + KERNEL_SOURCE}
    return {f"{folder}/model.onnx": graph, f"{folder}/weights.bin": weights}


def _peak(target: str, model: ir.Model, parameters: int) -> int:
    """Bytes that the build holds at its highest: weights are streamed, but not by TensorRT."""
    if target in PLANS:
        return BASE_MEMORY + _sizes(model)[0] + int(BUILDER_BYTES * parameters)
    largest = max((p.size for p in _tensors(model)), default=0)
    return BASE_MEMORY + IN_FLIGHT + largest // 32 * 4


def _sizes(model: ir.Model) -> tuple[int, int]:
    """(bytes of the weight file, rough bytes of the graph)."""
    stored: dict[object, int] = {}
    for tensor in _tensors(model):
        stored[tensor.metadata_props.get(STORAGE_KEY) or id(tensor)] = tensor.nbytes
    nodes = sum(_ops(model).values())
    return sum(stored.values()), 600 * nodes


def _ops(model: ir.Model) -> dict[str, int]:
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
