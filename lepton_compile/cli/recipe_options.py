"""The arguments that say what to compile: the same for ``build`` and ``plan``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["build_arguments", "recipe_options"]

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.argument("recipe", required=False),
    click.option("--model", metavar="M", help="hf:org/name@commit, package:, a folder or a file."),
    click.option("--task", metavar="T", help="optimum's task name; inferred when left out."),
    click.option("--target", metavar="X[,Y]", help="Engines to build, such as ort-cpu."),
    click.option("--quantize", metavar="Q", help="none, int8, int4 and so on."),
    click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Replace one value."),
    click.option("--max-memory", metavar="SIZE", help="Ceiling of the build's memory, as 4GB."),
)


def recipe_options(command: F) -> F:
    """Adds RECIPE and the options that replace parts of it."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def build_arguments(
    recipe: str | None,
    *,
    model: str | None,
    task: str | None,
    target: str | None,
    quantize: str | None,
    sets: tuple[str, ...],
    max_memory: str | None,
) -> dict[str, Any]:
    """The keyword arguments for ``api.build`` and ``api.plan``; values are dotted recipe keys.

    Raises:
        click.UsageError: neither a recipe nor a model.
        RecipeError: a ``--set`` or a size that cannot be read.
    """
    from lepton_compile.recipe import parse_override

    keywords = dict(parse_override(text) for text in sets)
    named = {"model": model, "task": task, "quantize": quantize}
    keywords.update({key: value for key, value in named.items() if value is not None})
    if target is not None:
        keywords["target"] = [name.strip() for name in target.split(",")]
    if recipe is None and "model" not in keywords:
        raise click.UsageError("name a RECIPE, or a model with --model")
    arguments = {"recipe": recipe, **keywords}
    if max_memory is not None:
        arguments["max_memory"] = _size(max_memory)
    return arguments


def _size(text: str) -> int:
    from lepton_compile.errors import RecipeError
    from lepton_compile.recipe.values import bytes_of

    try:
        return bytes_of(int(text) if text.isdigit() else text)
    except ValueError as error:
        raise RecipeError(str(error), where="--max-memory", found=text) from None
