"""The neutral graph of a recipe's model, held against the recipe: for a build and for a plan."""

from __future__ import annotations

from lepton_compile.api.dimensions import check_dimensions
from lepton_compile.api.pictured import check_room
from lepton_compile.api.placeholders import fill
from lepton_compile.api.rules import check_rules, check_weights
from lepton_compile.api.task import lengths_of, pooling_of, task_of
from lepton_compile.engines.contract import Step
from lepton_compile.export import ExportedModel, Pooling, Source
from lepton_compile.export.export import export
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.traced import TRACED
from lepton_compile.recipe import Recipe

__all__ = ["captured"]


def captured(
    recipe: Recipe, source: Source, step: Step, *, weights: bool = True
) -> tuple[ExportedModel, Pooling | None]:
    """The graph, and how its tokens become one vector.

    Args:
        weights: read them; without, they have shapes alone, except those of an ONNX file.

    Raises:
        RecipeError: what the recipe says does not hold for the graph.
        SourceError, ExportError: as of ``export`` and ``import_onnx``.
    """
    if source.kind == "onnx":
        exported, pooling = import_onnx(source, recipe.task, lengths_of(recipe)["length"]), None
        check_weights(recipe, exported)
        check_dimensions(recipe, exported)
    else:
        exported, pooling = _traced(recipe, source, step, weights)
    if not weights:
        fill(exported.model)
    check_rules(recipe, exported)
    check_room(recipe, source, exported)
    source.check_vocabulary()
    return exported, pooling


def _traced(
    recipe: Recipe, source: Source, step: Step, weights: bool
) -> tuple[ExportedModel, Pooling | None]:
    task = recipe.task or task_of(source)
    pooling = pooling_of(recipe, source, task)
    exported = export(
        source,
        task,
        **lengths_of(recipe),
        pooling=pooling,
        positions=recipe.position_ids,
        progress=step,
        traced=TRACED,
        weights=weights,
    )
    return exported, pooling
