"""Ranges of a recipe, and the dimensions that an ONNX file has for them."""

from __future__ import annotations

from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel
from lepton_compile.recipe import Recipe

__all__ = ["check_dimensions"]

AXES = {"batch": 0, "sequence": 1}
"""Where a first input has them."""


def check_dimensions(recipe: Recipe, imported: ExportedModel) -> None:
    """A range that the recipe writes is one of the file's dimensions: callers are held to it by
    name.

    Raises:
        RecipeError: the file calls the axis otherwise, or has one size of it alone.
    """
    shapes = [[*(value.shape or ())] for value in imported.model.graph.inputs]
    names = {str(size.value) for shape in shapes for size in shape if not isinstance(size, int)}
    for name, axis in AXES.items():  # in this order: a set has another in each process
        if name in names or name not in recipe.shapes.model_fields_set:
            continue
        wanted = getattr(recipe.shapes, name)
        size = shapes[0][axis] if shapes and len(shapes[0]) > axis else None
        if size is None or (isinstance(size, int) and wanted is not None and wanted[1] == size):
            continue
        raise RecipeError(
            "the ONNX file has no dimension of this name",
            where=f"shapes.{name}",
            found=f"{size} in {imported.model.graph.inputs[0].name}",
            available=sorted(names),
            hint=f"leave it out; or export the model again, with that axis called {name}",
        )
