"""``lepton-compile recipes``: the recipes that come with the package."""

from __future__ import annotations

import click

from lepton_compile.cli.output import console, emit_json, json_option, table

__all__ = ["recipes"]


@click.command()
@json_option
def recipes(as_json: bool) -> None:
    """List the shipped recipes; ``build`` takes their names."""
    from lepton_compile.recipe import catalog, load_recipe

    found = []
    for name, path in catalog.names().items():
        recipe = load_recipe(path)
        found.append(
            {
                "name": name,
                "description": recipe.description,
                "model": recipe.model,
                "task": recipe.task,
                "target": list(recipe.target),
                "quantize": recipe.quantize.format,
                "path": str(path),
            }
        )
    if as_json:
        emit_json(found)
        return
    rows = [(entry["name"], entry["quantize"], entry["description"]) for entry in found]
    console().print(table("Recipes", ("name", "precision", "what"), rows))
