"""Recipes: what to compile, for which target, and how good it has to be."""

from __future__ import annotations

from lepton_compile.recipe.idle import check_idle
from lepton_compile.recipe.load import load_recipe
from lepton_compile.recipe.overrides import apply_overrides, parse_override
from lepton_compile.recipe.quantize import Quantize, Rule
from lepton_compile.recipe.schema import TARGETS, TASKS, Gates, Passes, Recipe, Shapes, Verify

__all__ = [
    "TARGETS",
    "TASKS",
    "Gates",
    "Passes",
    "Quantize",
    "Recipe",
    "Rule",
    "Shapes",
    "Verify",
    "apply_overrides",
    "check_idle",
    "load_recipe",
    "parse_override",
]
