"""What a build would make for one target: passes over a graph whose weights have no values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from lepton_compile.api.choosing import known_tactics
from lepton_compile.api.early_model import own_kernels
from lepton_compile.api.estimates import (
    files_of,
    imported_bytes,
    ops_of,
    peak_of,
    sample_peak,
    search_peak,
)
from lepton_compile.api.fitting import energies_for, hessians_for
from lepton_compile.api.mixing import LENGTH
from lepton_compile.api.places import SHARED, place_of
from lepton_compile.api.scores import vocabulary
from lepton_compile.api.stored import with_stored_bits
from lepton_compile.api.task import config_of
from lepton_compile.engines.tensorrt.profiles import profile_count
from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.reference import mapped_bytes, reference_parameters
from lepton_compile.pipeline import passes_for, precision_of, rounds_activations, run
from lepton_compile.pipeline.plan import measures_cache
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_passes.quant.calibration import unseen

__all__ = ["EnginePlan", "plan_engine"]


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


def plan_engine(
    recipe: Recipe,
    target: str,
    model: ir.Model,
    source: Source,
    exported: ExportedModel,
    progress: Progress,
    notes: list[str],
) -> EnginePlan:
    """Run a target's passes over the graph, which they change; ``notes`` gets what to tell.

    Raises:
        RecipeError, PassError: as a build would.
    """
    progress.stage("passes", target)
    held = imported_bytes(source.path) if source.kind == "onnx" else 0
    place, recipe = place_of(target, recipe.target), recipe.for_target(target)
    native = target == "ort-cpu" and own_kernels(recipe, source).native
    if source.kind == "onnx":  # of which everything is known
        recipe = with_stored_bits(recipe, exported, native=native)
    tactics = known_tactics(recipe, target, exported)
    config, decoder = config_of(source), exported.task == "text-generation"
    asked = precision_of(recipe, target, config)
    rounded = rounds_activations(recipe, target, decoder=decoder)
    profiles = profile_count(
        decoder=decoder, rooms=recipe.shapes.cache, joint=recipe.profiles == "joint"
    )
    hessians = _unread(hessians_for, recipe, model, source, exported, progress, notes)
    energies = _unread(energies_for, recipe, model, source, exported, progress, notes)
    fitted = hessians is not None or energies is not None
    sampled = fitted or rounded or measures_cache(recipe, target)
    peak = _sampling_peak(recipe, model, source, exported, hessians) if sampled else 0
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
    peak = held + max(peak, peak_of(target, model, exported.parameters))
    refusals = [(p.name, r) for p in report.passes for r in p.refusals]
    ops = ops_of(model)  # before files_of, which leaves nothing to count
    return EnginePlan(
        target=target,
        precision=asked if recipe.quantize.bits else exported.stored or asked,
        files=files_of(place, target, model, target if place == SHARED else None, profiles),
        peak_memory_bytes=peak,
        passes={p.name: p.fired for p in report.passes if p.fired},
        ops=ops,
        missing=sorted({r.reason for name, r in refusals if name.startswith("legal-")}),
        refusals=[{"pass": name, "node": r.node, "reason": r.reason} for name, r in refusals],
    )


def _sampling_peak(
    recipe: Recipe, model: ir.Model, source: Source, exported: ExportedModel, hessians: Any
) -> int:
    """Bytes held by what looks at the calibration text."""
    peak = sample_peak(model, hessians.most if hessians is not None else 0)
    if recipe.quantize.algorithm == "auto":
        scores = min(LENGTH, exported.length) * vocabulary(source, exported.task)
        loaded = reference_parameters(source, exported.task, exported.parameters)
        peak = max(peak, search_peak(loaded, scores, mapped_bytes(source, loaded)))
    return peak


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
    """What ``make`` gives, which a plan never reads; None, and a note, where the model's folder has
    no tokenizer yet."""
    try:
        return make(recipe, model, source, exported, progress.step)
    except RecipeError as error:
        if source.kind == "onnx":  # which is all that a build has, too
            raise
        notes.append(error.message)
        return None
