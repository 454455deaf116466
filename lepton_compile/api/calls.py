"""What callers of the Python surface hand over, in the form that stages take, and their turns."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from lepton_compile.api.libraries import keep_to_cores
from lepton_compile.arguments import flag_of, path_of
from lepton_compile.errors import RecipeError, UsageError
from lepton_compile.progress import NullProgress, Progress

if TYPE_CHECKING:
    from lepton_compile.export import Source
    from lepton_compile.recipe import Recipe

__all__ = [
    "ONE_AT_A_TIME",
    "check_keywords",
    "looked_at",
    "optional",
    "progress_of",
    "spec_of",
    "told_in",
    "verify_of",
]

Made = TypeVar("Made")

ONE_AT_A_TIME = threading.RLock()
"""Calls: torch's tracing, and what transformers is told for it, are of the whole process."""


def looked_at(recipe: Recipe, *, builds: bool) -> Source | None:
    """The recipe's model, where this machine has it; None where it may have to be fetched."""
    keep_to_cores()
    from lepton_compile.api.early import check_buildable, check_early
    from lepton_compile.api.places import source_of

    check_early(recipe)
    if builds:
        check_buildable(recipe)
    if recipe.model.startswith("hf:") or (recipe.adapter or "").startswith("hf:"):
        return None
    return source_of(recipe, weights=builds)


@contextmanager
def told_in(recipe: Recipe) -> Iterator[None]:
    """A mistake in ``recipe`` that a stage inside finds, which knows by what key it was asked, is
    told at the file and line of that key, where it was written by itself."""
    try:
        yield
    except RecipeError as error:
        if error.where and recipe.writes(error.where):
            error.where = recipe.place(error.where)
        raise


def check_keywords(keywords: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Each is a key of a recipe; of another the nearest key or argument of ``function`` is named.

    Raises:
        RecipeError: one is not.
    """
    from lepton_compile.recipe import Recipe

    own = inspect.signature(function).parameters
    known = [*Recipe.model_fields, *(name for name in own if name not in Recipe.model_fields)]
    for name in keywords:
        if name in Recipe.model_fields:
            continue
        nearest = get_close_matches(name, known, n=1)
        raise RecipeError(
            f"Unknown key {name!r}.",
            where=f"{function.__name__}({name}=...)",
            found=name,
            available=[each for each in known if each != "keywords"],
            hint=f"Did you mean {nearest[0]!r}?" if nearest else None,
        )


def verify_of(verify: object) -> tuple[Mapping[str, Any] | None, bool]:
    """The recipe's key of that name, where it is given, and whether to verify."""
    if isinstance(verify, Mapping):
        return verify, True
    return None, flag_of(verify, "verify, where it is no mapping,")


def optional(value: object, make: Callable[[object, str], Made], name: str) -> Made | None:
    """``make(value, name)`` of an argument; None where none is given. Errors: those of ``make``."""
    return None if value is None else make(value, name)


def spec_of(value: object, name: str) -> str:
    """Where a model is, as text. Raises UsageError where it is neither text nor a path."""
    return str(path_of(value, name))


def progress_of(progress: Any) -> Progress:
    """Nobody, where nobody watches."""
    if progress is None:
        return NullProgress()
    if not all(callable(getattr(progress, name, None)) for name in ("stage", "step")):
        raise UsageError(
            "progress has the methods stage and step", found=f"{progress!r:.80}", available=["None"]
        )
    watcher: Progress = progress
    return watcher
