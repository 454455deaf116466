"""Kernels of the ort-cpu engine: whether a build times them, and what for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lepton_compile.api.demands import demands
from lepton_compile.api.describe import ranges_of
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.engines.contract import Step
from lepton_compile.engines.ort_cpu.kernels import TARGET, kernels_for
from lepton_compile.engines.ort_cpu.probe import probe
from lepton_compile.errors import LeptonError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.numerics.tolerance import TOLERANCES, Tolerance
from lepton_compile.pipeline import precision_of
from lepton_compile.recipe import Recipe
from lepton_compile.tactics import (
    NEEDED,
    Bench,
    Store,
    Tactics,
    Wanted,
    tactics_folder,
    this_machine,
    wanted_of,
)

__all__ = ["known_tactics", "tactics_for"]


def tactics_for(
    recipe: Recipe, library: Path | None, source: Source, exported: ExportedModel, step: Step
) -> dict[str, Tactics]:
    """What chooses kernels for an engine, by its target; empty where a fixed rule does.

    Args:
        recipe: as the target sees it.
        library: our kernels, of an engine that has them.
        step: told about each layer that is timed.
    """
    if library is None or not _measures(recipe):
        return {}

    def why_not() -> str:
        with suppress(LeptonError, OSError):  # whoever needs them says so
            source.digests()  # a thread that reads the whole model would be timed, too
        return MemoryCeiling(recipe.max_memory).lacks(NEEDED, "timing kernels")

    machine = this_machine(library)
    exact = _precision(recipe) == "int8"
    bench = Bench(library, exact)
    store = Store(tactics_folder(), machine)
    wanted = _wanted(recipe, exported)
    return {TARGET: Tactics(machine, wanted, store, bench, exact, why_not, step)}


def known_tactics(recipe: Recipe, target: str, exported: ExportedModel) -> Tactics | None:
    """The same for a plan, which times nothing: what builds on this machine have measured."""
    if target != TARGET or not kernels_for(recipe).native or not _measures(recipe):
        return None
    machine = this_machine(None)
    store = Store.latest(tactics_folder(), machine)
    return Tactics(machine, _wanted(recipe, exported), store, exact=_precision(recipe) == "int8")


def _measures(recipe: Recipe) -> bool:
    return recipe.kernels == "auto" and recipe.tactics == "measure" and probe().runs


def _precision(recipe: Recipe) -> str:
    return precision_of(recipe, TARGET)


def _wanted(recipe: Recipe, exported: ExportedModel) -> Wanted:
    precision = _precision(recipe)
    known = precision in TOLERANCES
    kept = demands(precision, exported.task, recipe.gates) if known else Tolerance()
    return wanted_of(
        recipe.objective,
        ranges_of(recipe, exported),
        decoder=exported.cached,
        perplexity=kept.perplexity,
        cosine=kept.cosine,
    )
