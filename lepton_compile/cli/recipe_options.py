"""The arguments that say what to compile: the same for ``build`` and ``plan``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["build_arguments", "build_options", "recipe_options"]

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.argument("recipe", required=False),
    click.option("--model", metavar="M", help="hf:org/name@commit, package:, a folder or a file."),
    click.option("--adapter", metavar="A", help="LoRA adapter to merge: hf:org/name or a folder."),
    click.option("--task", metavar="T", help="optimum's task name; inferred when left out."),
    click.option("--target", metavar="X[,Y]", help="Engines to build, such as ort-cpu."),
    click.option("--quantize", metavar="Q", help="none, int8, int4 and so on."),
    click.option(
        "--tactics",
        type=click.Choice(("measure", "default")),
        help="Kernels of ort-cpu: timed on this machine, or a fixed rule.",
    ),
    click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Replace one value."),
    click.option("--max-memory", metavar="SIZE", help="Ceiling of the build's memory, as 4GB."),
)

BUILD_OPTIONS = (
    click.option("-o", "--output", metavar="DIR", help="Folder to write; must not exist."),
    click.option("--no-check", is_flag=True, help="Do not compare after each pass."),
    click.option("--no-verify", is_flag=True, help="Do not compare the engine with PyTorch."),
)


def build_options(command: F) -> F:
    """Adds the options that say how to build, which ``plan`` takes too."""
    for option in reversed(BUILD_OPTIONS):
        command = option(command)
    return command


def recipe_options(command: F) -> F:
    """Adds RECIPE and the options that replace parts of it."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def build_arguments(
    recipe: str | None,
    *,
    model: str | None,
    adapter: str | None,
    task: str | None,
    target: str | None,
    quantize: str | None,
    tactics: str | None,
    sets: tuple[str, ...],
    max_memory: str | None,
) -> dict[str, Any]:
    """The keyword arguments for ``api.build`` and ``api.plan``; None keeps the recipe's value.

    Raises:
        click.UsageError: neither a recipe nor a model.
        RecipeError: a ``--set`` that cannot be read.
    """
    from lepton_compile.recipe import parse_override

    overrides = dict(parse_override(text) for text in sets)
    if recipe is None and model is None and "model" not in overrides:
        raise click.UsageError("name a RECIPE, or a model with --model")
    targets = [name.strip() for name in target.split(",")] if target is not None else None
    return {
        "recipe": recipe,
        "model": model,
        "adapter": adapter,
        "task": task,
        "target": targets,
        "quantize": quantize,
        "tactics": tactics,
        "max_memory": max_memory,
        "overrides": overrides,
    }
