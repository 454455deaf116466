"""Mistakes that a recipe shows by itself, found before anything is captured."""

from __future__ import annotations

from typing import Any

from lepton_compile.api.task import task_of
from lepton_compile.api.texts import check_recipe_text, read_text
from lepton_compile.engines import TARGETS
from lepton_compile.engines.probe import probe
from lepton_compile.engines.tensorrt.capabilities import (
    check_capabilities,
    check_dtype,
    check_plugin,
)
from lepton_compile.engines.tensorrt.flavour import RTX, TRT
from lepton_compile.errors import EngineError, RecipeError
from lepton_compile.export import Source
from lepton_compile.export.assets import generation
from lepton_compile.pipeline import passes_for, precision_of
from lepton_compile.pipeline.compute import compute_dtype
from lepton_compile.recipe import Recipe, check_idle

__all__ = ["check_buildable", "check_early", "check_model"]

FLAVOURS = {flavour.target: flavour for flavour in (RTX, TRT)}
WEIGHTS = {"int4": "INT4", "fp8": "FLOAT8E4M3FN"}


def check_early(recipe: Recipe) -> None:
    """What needs the recipe alone.

    Raises:
        RecipeError: something this version does not have, a pass that nobody knows, or no text to
            verify on.
        EngineError: a GPU that a target does not build for, a plugin that it does not take.
    """
    if recipe.position_ids:
        _check_positions(recipe)
    if recipe.verify.text is not None and not recipe.model.endswith(".onnx"):
        read_text(recipe.base / recipe.verify.text)
    for target in recipe.target:
        own = recipe.for_target(target)
        passes_for(own, target)
        if flavour := FLAVOURS.get(target):
            check_capabilities(own.compute_capabilities, flavour)
            check_plugin(own.plugin, flavour)


def check_buildable(recipe: Recipe) -> None:
    """Each target can be built here: the last of several would say so when the others are made.

    Raises:
        EngineError: one cannot, with what is missing.
    """
    for target in recipe.target:
        state = probe(target)
        if not state.builds:
            raise EngineError(
                f"{target} cannot be built on this machine",
                where="target",
                found=state.reason,
                available=[name for name in TARGETS if probe(name).builds],
                hint=state.install or "leave the target out, or build where it can be built",
            )


def _check_positions(recipe: Recipe) -> None:
    others = [target for target in recipe.target if not target.startswith("ort-")]
    if others or recipe.model.endswith(".onnx"):
        raise RecipeError(
            "positions are an input of ONNX Runtime's engines of captured models alone",
            where="position_ids",
            found=f"true, for {', '.join(others) or recipe.model}",
            hint="leave it out: positions are derived from the attention mask",
        )


def check_model(recipe: Recipe, source: Source) -> None:
    """What needs the model, too, and nothing of its graph.

    Raises:
        RecipeError: something in the recipe changes nothing for the model's task, or there is
            nothing to verify on in its text.
        SourceError: a token of the model's settings is no number.
        EngineError: a GPU without arithmetic for a type.
    """
    known = recipe.task is not None or source.kind == "onnx"
    task = recipe.task if known else task_of(source)
    check_idle(recipe, None if known else task)
    if task == "text-generation" and source.kind != "onnx":
        generation(source)
    _check_precision(recipe, None if source.kind == "onnx" else source.config())
    check_recipe_text(recipe, source)


def _check_precision(recipe: Recipe, config: Any) -> None:
    """What needs the model's configuration too: each GPU that is named takes the types asked for.

    The builder asks again, of the graph it is given.

    Raises:
        EngineError: a GPU without arithmetic for a type.
    """
    for target in recipe.target:
        flavour = FLAVOURS.get(target)
        if flavour is None:
            continue
        own = recipe.for_target(target)
        half = compute_dtype(own, target, config)
        weights = WEIGHTS.get(precision_of(own, target, config))
        for dtype in (half.name if half else None, weights, WEIGHTS.get(own.quantize.cache)):
            check_dtype(dtype, "compute_capabilities", own.compute_capabilities, flavour)
