"""Predict a build from the model's configuration alone, or from an ONNX file.

The graph is captured and lowered for real, on weights that have a shape and no values; a file is
imported as it is. What the build would write is then a matter of adding up; only time and memory
are estimates.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.api.choosing import known_tactics
from lepton_compile.api.early_model import check_model
from lepton_compile.api.estimates import (
    Estimate,
    check_estimate,
    files_of,
    imported_bytes,
    ops_of,
    peak_of,
    sample_peak,
    search_peak,
    verify_estimate,
)
from lepton_compile.api.fitting import energies_for, hessians_for
from lepton_compile.api.mixing import LENGTH
from lepton_compile.api.pictures import sees
from lepton_compile.api.places import SHARED, copies_of, output_of, place_of, source_of
from lepton_compile.api.rules import check_rules, check_weights
from lepton_compile.api.stored import with_stored_bits
from lepton_compile.api.task import config_of, lengths_of, pooling_of, task_of
from lepton_compile.api.verification import runnable
from lepton_compile.engines.ort_cpu.kernels import kernels_for
from lepton_compile.engines.tensorrt.profiles import profile_count
from lepton_compile.errors import ExportError, RecipeError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.checkpoint.quantized import method_of
from lepton_compile.export.encoder_decoder import PAIRS
from lepton_compile.export.export import capture
from lepton_compile.export.generation_rules import left_out
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.reference import mapped_bytes, reference_parameters
from lepton_compile.export.traced import TRACED
from lepton_compile.numerics.sample_images import COMPARED
from lepton_compile.numerics.sample_text import BATCH, SEGMENT
from lepton_compile.numerics.verify_pair import ANSWER
from lepton_compile.pipeline import passes_for, precision_of, rounds_activations, run
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_passes.body import LAYER_DOMAIN, SMALL
from lepton_passes.quant._calibration import unseen
from lepton_passes.tensors import StreamedTensor

__all__ = ["EnginePlan", "Plan", "make_plan"]

# Parameters quantized and written in a second, one core of a server of 2023.
PARAMETERS_PER_SECOND = 45_000_000
SAMPLE_TOKENS = 1_800
"""About as many as the text has that ships with the package."""
SHIFTED = ("awq", "compressed-tensors", "gptq")
"""Ways of quantizing that may have zero points."""


@dataclass(frozen=True)
class EnginePlan:
    """What a build would make for one target.

    Attributes:
        files: bytes of each file of the engine.
        peak_memory_bytes: estimated, of building it, without check and verification.
        passes: how often each pass would fire.
        ops: how often each op occurs in the lowered graph.
        missing: ops that the target has no kernel for.
        refusals: what passes would decline: ``pass``, ``node``, ``reason``.
    """

    target: str
    precision: str
    files: dict[str, int]
    peak_memory_bytes: int
    passes: dict[str, int]
    ops: dict[str, int]
    missing: list[str]
    refusals: list[dict[str, str]]


@dataclass(frozen=True)
class Plan:
    """What a build would do.

    Attributes:
        output: the folder it would write.
        layers: how the layers are captured, such as ``"18 layers, 2 kinds traced once each"``.
        engines: one for each target of the recipe.
        peak_memory_bytes: estimated, of the stages that are always there.
        seconds: estimated wall time of these; capture was measured, the rest is a rate.
        check: estimated seconds and peak memory of the per-pass check; None where it is left out.
        verify: the same of the verification; None where it is left out or no engine runs here.
    """

    model: str
    output: str
    task: str
    architecture: str
    parameters: int
    how: str
    layers: str
    engines: tuple[EnginePlan, ...]
    peak_memory_bytes: int
    seconds: float
    check: Estimate | None
    verify: Estimate | None
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, int]:
        """Bytes of each file of all engines."""
        return {name: size for engine in self.engines for name, size in engine.files.items()}

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def make_plan(
    recipe: Recipe,
    found: Source | None,
    progress: Progress,
    *,
    output: Path | None = None,
    check: bool = True,
    verify: bool = True,
) -> Plan:
    """Capture and lower on shapes alone.

    Args:
        found: the recipe's model; None for the hub's, which is fetched here.

    Raises:
        RecipeError, SourceError, ExportError, PassError: as a build would.
    """
    start = time.perf_counter()
    progress.stage("resolve", recipe.model)
    source = found or source_of(recipe, weights=False)
    check_model(recipe, source)
    progress.stage("capture")
    exported = _captured(recipe, source, progress)
    check_rules(recipe, exported)
    captured = time.perf_counter() - start
    layers = _layers(exported)
    engines, notes = _engines(recipe, source, exported, progress)
    return Plan(
        model=recipe.model,
        output=str(output or output_of(recipe)),
        task=exported.task,
        architecture=exported.architecture,
        parameters=exported.parameters,
        how=exported.how,
        layers=layers,
        engines=engines,
        peak_memory_bytes=max(e.peak_memory_bytes for e in engines),
        seconds=captured + exported.parameters * len(engines) / PARAMETERS_PER_SECOND,
        check=check_estimate(exported.parameters, len(engines)) if check else None,
        verify=_verification(recipe, source, exported, engines) if verify else None,
        notes=[
            *exported.notes,
            *notes,
            *_unseen_zeros(recipe, source),
            *left_out(source, exported.task),
        ],
    )


def _captured(recipe: Recipe, source: Source, progress: Progress) -> ExportedModel:
    """The neutral graph on shapes alone; that of an ONNX file with the weights that are in it."""
    if source.kind == "onnx":
        imported = import_onnx(source, recipe.task, lengths_of(recipe)["length"])
        check_weights(recipe, imported)
        return imported
    task = recipe.task or task_of(source)
    exported = capture(
        source,
        task,
        **lengths_of(recipe),
        pooling=pooling_of(recipe, source, task),
        positions=recipe.position_ids,
        progress=progress.step,
        traced=TRACED,
    )
    source.check_vocabulary()
    _fill(exported.model)
    return exported


def _unseen_zeros(recipe: Recipe, source: Source) -> list[str]:
    """That a plan, which reads no weights, knows of no zero points or offsets."""
    settings = source.quantization
    shifted = settings is not None and method_of(settings) in SHIFTED
    if source.kind == "gguf":  # whose header is read for its configuration, too
        infos = source.checkpoint().names().values()
        shifted = any(info.integers is not None and info.integers.own for info in infos)
    if not shifted or not recipe.quantize.may_have_integers:
        return []
    return ["layers that keep zero points or offsets of the checkpoint are planned without them"]


def _engines(
    recipe: Recipe, source: Source, exported: ExportedModel, progress: Progress
) -> tuple[tuple[EnginePlan, ...], list[str]]:
    """One engine for each target, and what is to be noted; the last takes the original graph."""
    notes: list[str] = []
    engines = [
        _engine(recipe, target, model, source, exported, progress, notes)
        for target, model in copies_of(exported.model, recipe.target)
    ]
    return tuple(engines), list(dict.fromkeys(notes))


def _verification(
    recipe: Recipe, source: Source, exported: ExportedModel, engines: Sequence[EnginePlan]
) -> Estimate | None:
    if source.kind == "onnx":  # which comes without the PyTorch model
        return None
    reasons = runnable(recipe.target)
    held = [sum(e.files.values()) for e in engines if not reasons[e.target]]
    tokens = recipe.verify.tokens
    if recipe.verify.text is None:
        tokens = min(tokens, SAMPLE_TOKENS)
    if sees(exported):
        tokens = COMPARED * exported.length
    if not held:
        return None
    compiled, vocabulary = exported.parameters, _vocabulary(source, exported)
    unread = reference_parameters(source, exported.task, compiled) - compiled
    mapped = mapped_bytes(source, compiled + unread)
    words = _words(source, exported)
    return verify_estimate(compiled, tokens, held, vocabulary, unread, mapped, words)


def _vocabulary(source: Source, exported: ExportedModel) -> int:
    """Scores that a decoder gives for each position; 0 for an encoder."""
    return _table(source) if exported.task == "text-generation" else 0


def _table(source: Source) -> int:
    """Words of the model's table."""
    return int(source.config().get_text_config().vocab_size)


def _words(source: Source, exported: ExportedModel) -> int:
    """Scores of words that are held while an encoder's batch is compared: those of PyTorch and the
    engine and what they are compared by, or the pooled ones of one after the other."""
    if exported.task in PAIRS:
        return 4 * ANSWER * _table(source)
    times = {"fill-mask": 4, "sparse-embedding": 2}.get(exported.task, 0)
    if not times:
        return 0
    tokens = BATCH * min(SEGMENT, exported.length)
    return times * tokens * _table(source)


def _sampling_peak(
    recipe: Recipe, model: ir.Model, source: Source, exported: ExportedModel, hessians: Any
) -> int:
    """Bytes held by what looks at the calibration text."""
    peak = sample_peak(model, hessians.most if hessians is not None else 0)
    if recipe.quantize.algorithm == "auto":
        scores = min(LENGTH, exported.length) * _vocabulary(source, exported)
        loaded = reference_parameters(source, exported.task, exported.parameters)
        peak = max(peak, search_peak(loaded, scores, mapped_bytes(source, loaded)))
    return peak


def _engine(
    recipe: Recipe,
    target: str,
    model: ir.Model,
    source: Source,
    exported: ExportedModel,
    progress: Progress,
    notes: list[str],
) -> EnginePlan:
    progress.stage("passes", target)
    held = imported_bytes(source.path, model) if source.kind == "onnx" else 0
    place = place_of(target, recipe.target)
    recipe = recipe.for_target(target)
    native = target == "ort-cpu" and kernels_for(recipe).native
    if source.kind == "onnx":  # of which everything is known
        recipe = with_stored_bits(recipe, exported, native=native)
    tactics = known_tactics(recipe, target, exported)
    config, decoder = config_of(source), exported.task == "text-generation"
    asked = precision_of(recipe, target, config)
    rounded = rounds_activations(recipe, target, decoder=decoder)
    rooms, joint = recipe.shapes.cache, recipe.profiles == "joint"
    profiles = profile_count(decoder=decoder, rooms=rooms, joint=joint)
    hessians = _unread(hessians_for, recipe, model, source, exported, progress, notes)
    energies = _unread(energies_for, recipe, model, source, exported, progress, notes)
    sampled = rounded or recipe.quantize.cache != "same" or hessians is not None
    peak = 0
    if sampled or energies is not None:
        peak = _sampling_peak(recipe, model, source, exported, hessians)
    passes = passes_for(
        recipe,
        target,
        length=exported.length,
        config=config,
        hessians=hessians,
        energies=energies,
        measure=unseen if rounded else None,
        native=native,
        choose_kernels=tactics,
    )
    notes.extend(_eight_bits(recipe))
    report = run(model, passes, progress=progress.step, refuse=False)
    notes.extend(tactics.remarks() if tactics is not None else ())
    illegal = [p for p in report.passes if p.name.startswith("legal-")]
    peak = held + max(peak, peak_of(target, model, exported.parameters))
    ops = ops_of(model)  # of which files_of leaves nothing to count
    return EnginePlan(
        target=target,
        precision=asked if recipe.quantize.bits else exported.stored or asked,
        files=files_of(place, target, model, target if place == SHARED else None, profiles),
        peak_memory_bytes=peak,
        passes={p.name: p.fired for p in report.passes if p.fired},
        ops=ops,
        missing=sorted({r.reason for p in illegal for r in p.refusals}),
        refusals=[
            {"pass": p.name, "node": r.node, "reason": r.reason}
            for p in report.passes
            for r in p.refusals
        ],
    )


def _eight_bits(recipe: Recipe) -> list[str]:
    """That weights are planned in 8 bits where nothing has said yet how many they take."""
    if recipe.quantize.algorithm == "auto":
        return ["bits are chosen when weights are read: this is 8 for all, the most they take"]
    if recipe.quantize.algorithm == "stored":
        return ["a plan does not look at how weights are stored: this is 8 bits for all"]
    return []


def _unread(
    make: Callable[..., Any],
    recipe: Recipe,
    model: ir.Model,
    source: Source,
    exported: ExportedModel,
    progress: Progress,
    notes: list[str],
) -> Any:
    """Never read in a plan; a folder that has its configuration alone has no text to fit to."""
    try:
        return make(recipe, model, source, exported, progress.step)
    except RecipeError as error:
        if source.kind == "onnx":  # which is all that a build has, too
            raise
        notes.append(error.message)
        return None


def _fill(model: ir.Model) -> None:
    """Tensors of the right shape; values of all but small ones must not be asked for."""
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            assert value.dtype is not None
            assert value.shape is not None
            shape = value.shape.numpy()
            # Passes look into small ones, such as the bias of two labels, for constants among them.
            read = _any_values(name, shape) if math.prod(shape) <= SMALL else _no_values
            value.const_value = StreamedTensor(name, value.dtype, shape, read)


def _any_values(name: str, shape: Sequence[int]) -> Callable[[int, int], np.ndarray]:
    """Numbers of which no pass makes anything, others for each name."""
    number = 0.5 + zlib.crc32(name.encode()) / 2**33
    return lambda start, stop: np.full((stop - start, *shape[1:]), number, np.float32)


def _no_values(start: int, stop: int) -> np.ndarray:
    raise ExportError("a plan has no weights to read")


def _layers(exported: ExportedModel) -> str:
    """How the layers were captured, in words; asked before lowering inlines anything."""
    if exported.how == "imported":
        return "nothing: an ONNX file, its layers as they are"
    if exported.how != "stamped":
        return "traced whole" if exported.how == "whole" else "traced whole, attention not captured"
    calls = sum(1 for node in exported.model.graph if node.domain == LAYER_DOMAIN)
    kinds = f"{exported.kinds} kind{'s' if exported.kinds > 1 else ''} traced once each"
    every = exported.states or exported.task in PAIRS
    layers = calls if every else len(exported.caches) or calls
    return f"{layers} layers, {kinds}"
