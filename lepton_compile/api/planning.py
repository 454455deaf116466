"""Predict a build from the model's configuration alone, or from an ONNX file.

The graph is captured and lowered for real, on weights that have a shape and no values; a file is
imported as it is. What the build would write is then a matter of adding up; only time and memory
are estimates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lepton_compile.api.capturing import captured
from lepton_compile.api.comparing import no_room_to_check, room_beside
from lepton_compile.api.early_model import check_model
from lepton_compile.api.estimates import (
    Estimate,
    check_estimate,
    verify_estimate,
)
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.api.pictured import room_told
from lepton_compile.api.pictures import sees
from lepton_compile.api.places import copies_of, output_of, source_of
from lepton_compile.api.planned_engine import EnginePlan, plan_engine
from lepton_compile.api.scores import behind_layers, vocabulary, words
from lepton_compile.api.verification import runnable
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.checkpoint.quantized import method_of
from lepton_compile.export.encoder_decoder import PAIRS
from lepton_compile.export.generation_rules import left_out
from lepton_compile.export.image_text import IMAGE_TEXT
from lepton_compile.export.reference import mapped_bytes
from lepton_compile.numerics.sample_images import COMPARED
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_passes.body import LAYER_DOMAIN

__all__ = ["Plan", "make_plan"]

# Parameters quantized and written in a second, one core of a server of 2023.
PARAMETERS_PER_SECOND = 45_000_000
SAMPLE_TOKENS = 1_800
"""About as many as the text has that ships with the package."""
SHIFTED = ("awq", "compressed-tensors", "gptq")
"""Ways of quantizing that may have zero points."""


@dataclass(frozen=True)
class Plan:
    """What a build would do.

    Attributes:
        output: the folder it would write.
        layers: how the layers are captured, such as ``"18 layers, 2 kinds traced once each"``.
        pictures: how many tokens one takes, in words; empty of other models.
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
    pictures: str
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
    exported, _ = captured(recipe, source, progress.step, weights=False)
    until_captured = time.perf_counter() - start
    layers = _layers(exported)
    engines, notes = _engines(recipe, source, exported, progress)
    ceiling, size = MemoryCeiling(recipe.max_memory), exported.parameters
    unchecked = no_room_to_check(ceiling, size) if check else ""
    verify = verify and source.kind != "onnx"  # which comes without the PyTorch model
    held, unverified = room_beside(ceiling, recipe, source, exported) if verify else (0, "")
    peak = max(e.peak_memory_bytes for e in engines)
    said = {
        "": ceiling.below(peak),
        "passes will not be compared: ": unchecked,
        "engines will not be verified: ": unverified,
    }
    return Plan(
        model=recipe.model,
        output=str(output or output_of(recipe)),
        task=exported.task,
        architecture=exported.architecture,
        parameters=size,
        how=exported.how,
        layers=layers,
        pictures=room_told(source, exported),
        engines=engines,
        peak_memory_bytes=peak,
        seconds=until_captured + size * len(engines) / PARAMETERS_PER_SECOND,
        check=check_estimate(size, len(engines)) if check and not unchecked else None,
        verify=_verification(recipe, source, exported, engines, held)
        if verify and not unverified
        else None,
        notes=[
            *exported.notes,
            *notes,
            *_unseen_zeros(recipe, source),
            *left_out(source, exported.task),
            *(f"{what}{why}" for what, why in said.items() if why),
        ],
    )


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
        plan_engine(recipe, target, model, source, exported, progress, notes)
        for target, model in copies_of(exported.model, recipe.target)
    ]
    return tuple(engines), list(dict.fromkeys(notes))


def _verification(
    recipe: Recipe,
    source: Source,
    exported: ExportedModel,
    engines: Sequence[EnginePlan],
    loaded: int,
) -> Estimate | None:
    """``loaded``: weights of the fp32 model that are held at a time."""
    reasons = runnable(recipe.target)
    held = [sum(e.files.values()) for e in engines if not reasons[e.target]]
    tokens = recipe.verify.tokens
    if recipe.verify.text is None:
        tokens = min(tokens, SAMPLE_TOKENS)
    if sees(exported):
        tokens = COMPARED * exported.length
    if not held:
        return None
    compiled, scores = exported.parameters, vocabulary(source, exported.task)
    mapped = mapped_bytes(source, loaded) if loaded >= compiled else 0
    several = words(source, exported)
    behind = behind_layers(source, exported.task)
    return verify_estimate(compiled, tokens, held, scores, loaded, mapped, several, behind)


def _layers(exported: ExportedModel) -> str:
    """How the layers were captured, in words; asked before lowering inlines anything."""
    if exported.how == "imported":
        return "nothing: an ONNX file, its layers as they are"
    if exported.how != "stamped":
        return "traced whole" if exported.how == "whole" else "traced whole, attention not captured"
    calls = sum(1 for node in exported.model.graph if node.domain == LAYER_DOMAIN)
    kinds = f"{exported.kinds} kind{'s' if exported.kinds > 1 else ''} traced once each"
    every = exported.states or exported.task in (*PAIRS, IMAGE_TEXT)
    layers = calls if every else len(exported.caches) or calls
    return f"{layers} layers, {kinds}"
