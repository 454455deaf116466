"""Mistakes that a recipe shows by itself, found before torch is loaded."""

from __future__ import annotations

from lepton_compile.api.texts import read_text
from lepton_compile.engines import TARGETS
from lepton_compile.engines.ort_cpu.kernels import kernels_for
from lepton_compile.engines.probe import probe
from lepton_compile.engines.tensorrt.capabilities import check_capabilities, check_plugin
from lepton_compile.engines.tensorrt.flavour import FLAVOURS
from lepton_compile.errors import EngineError, RecipeError
from lepton_compile.pipeline import passes_for
from lepton_compile.recipe import Recipe

__all__ = ["check_buildable", "check_early"]


def check_early(recipe: Recipe) -> None:
    """What needs the recipe alone.

    Raises:
        RecipeError: something this version does not have, a pass that nobody knows, no text to
            verify on, a GPU that a target does not build for, or a plugin that it does not take.
        EngineError: the recipe demands kernels of our own, and this machine cannot make them.
    """
    if recipe.position_ids:
        _check_positions(recipe)
    if recipe.verify.text is not None and not recipe.model.endswith(".onnx"):
        read_text(recipe.base / recipe.verify.text)
    for target in recipe.target:
        own = recipe.for_target(target)
        passes_for(own, target, native=target == "ort-cpu" and kernels_for(recipe).native)
        if flavour := FLAVOURS.get(target):
            where = recipe.key_of("compute_capabilities", target)
            check_capabilities(own.compute_capabilities, flavour, where)
            check_plugin(own.plugin, flavour, recipe.key_of("plugin", target))


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
                where=recipe.place("target"),
                found=state.reason,
                available=[name for name in TARGETS if probe(name).builds],
                hint=state.install or "leave the target out, or build where it can be built",
            )


def _check_positions(recipe: Recipe) -> None:
    others = [target for target in recipe.target if not target.startswith("ort-")]
    if others or recipe.model.endswith(".onnx"):
        raise RecipeError(
            "position_ids is for ONNX Runtime engines, and not for models from .onnx files",
            where="position_ids",
            found=f"true, for {', '.join(others) or recipe.model}",
            hint="leave it out: positions are derived from the attention mask",
        )
