"""A recipe from a file, a name of the catalog, or a mapping."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lepton_compile.arguments import path_of, placed
from lepton_compile.errors import RecipeError
from lepton_compile.recipe import catalog
from lepton_compile.recipe.document import Document, parse_document
from lepton_compile.recipe.idle import check_idle
from lepton_compile.recipe.overrides import OPTIONS, apply_overrides, option_of
from lepton_compile.recipe.problems import recipe_error
from lepton_compile.recipe.schema import Recipe
from lepton_compile.recipe.values import plain_of, text_of

__all__ = ["load_recipe"]

# The precisions of each target in this version; a target that is not here decides for itself.
AVAILABLE = {"ort-cpu": ("none", "int8", "int4", "auto", "stored")}

# What is no path: the hub's, a package's, and addresses, which are refused as what they are.
PLACELESS = re.compile(r"hf:|package:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
MODELS = (".gguf", ".onnx", ".safetensors")


def load_recipe(
    spec: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    options: Collection[str] = (),
) -> Recipe:
    """Read and check a recipe.

    Args:
        spec: a YAML file, a name such as ``minilm/ort-cpu-int8``, the data itself, or a recipe that
            was read before. Relative paths inside start from the file's folder; for data, from the
            working folder.
        overrides: dotted key -> value, applied before the check.
        options: top-level keys, of the data or the overrides, that came as options of a command or
            keywords of a call: mistakes in them are told there.

    Raises:
        RecipeError: not found, not readable, or a mistake; each with file, line and nearest key.
    """
    document, base = _document(spec)
    before = spec.before if isinstance(spec, Recipe) else None
    if overrides:
        written, document = document, _overridden(document, overrides)
        before = spec if isinstance(spec, Recipe) else _alone(written, document.data.get("model"))
    # A keyword that no option is for stands in the call alone, unless it replaces a line of a file.
    named = (key for key in options if key in OPTIONS or (key,) in document.places)
    document.places |= {(key,): option_of(key) for key in named}
    try:
        recipe = Recipe.model_validate(plain_of(document.data))
    except ValidationError as error:
        raise recipe_error(error, document) from None
    recipe.written_in(base, document.places, before)
    _check_available(recipe, document)
    _check_passes(recipe, document)
    check_idle(recipe)
    return recipe


def _overridden(document: Document, overrides: Mapping[str, Any]) -> Document:
    data = apply_overrides(document.data, _anchored(overrides))
    places = dict(document.places)
    for key in overrides:
        path = tuple(key.split("."))
        places = {each: place for each, place in places.items() if each[: len(path)] != path}
        # Sections above it that no file has are made for it: a mistake in them is its own.
        opened = [path[:end] for end in range(1, len(path)) if path[0] not in document.data]
        places |= dict.fromkeys([*opened, path], f"--set {key}")
    return Document(document.name, data, places)


def _alone(document: Document, model: object) -> Recipe | None:
    """What is written, without overrides, which may name the model; None where it is no recipe."""
    try:
        return Recipe.model_validate({"model": model, **plain_of(document.data)})
    except ValidationError:
        return None


def _anchored(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides whose paths start from the working folder, where they were typed."""
    result = dict(overrides)
    for key in ("model", "adapter", "verify.text"):
        value = text_of(result.get(key))
        if isinstance(value, str) and value and not PLACELESS.match(value):
            result[key] = str(placed(value, Path.cwd(), key))
    return result


def _check_available(recipe: Recipe, document: Document) -> None:
    for target in recipe.target:
        available = AVAILABLE.get(target)
        found = recipe.for_target(target).quantize.format
        if available is not None and found not in available:
            raise RecipeError(
                f"{target} cannot be built in this precision in this version.",
                where=document.place(("quantize",)),
                found=f"quantize: {found}",
                available=available,
                hint=f"per_target: {{{target}: {{quantize: …}}}} gives it one of its own"
                if len(recipe.target) > 1
                else None,
            )


def _check_passes(recipe: Recipe, document: Document) -> None:
    """No pass that is left out has to fire."""
    for name, count in recipe.passes.expect.items():
        if count and name in recipe.passes.disable:
            raise RecipeError(
                f"passes.disable leaves out {name!r}, and passes.expect has it fire.",
                where=document.place(("passes", "expect", name)),
                found=f"{name}: {count}",
                available=[f"{name}: 0"],
                hint="take it out of one of them",
            )


def _document(spec: str | Path | Mapping[str, Any] | Recipe) -> tuple[Document, Path]:
    if isinstance(spec, Recipe):
        data = spec.model_dump(exclude_unset=True)
        return Document("recipe", data, dict(spec._places)), spec.base
    if isinstance(spec, Mapping):
        return Document("recipe", dict(spec)), Path.cwd()
    path = path_of(spec, "recipe")
    if (path / "config.json").is_file() or path.suffix in MODELS:
        what = "This is a model, not a recipe." if path.exists() else "There is no such model."
        raise _not_a_recipe(what, path)
    if path.is_dir() and str(spec) not in catalog.names():
        raise _not_a_recipe("This is a folder, not a recipe.", path)
    if not path.is_file():
        path = catalog.find(str(spec))
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            "The recipe cannot be read.", where=str(path), found=str(error)
        ) from error
    return parse_document(text, str(path)), path.absolute().parent


def _not_a_recipe(what: str, path: Path) -> RecipeError:
    return RecipeError(
        what,
        found=str(path),
        available=["a YAML file", "the name of a shipped recipe"],
        hint=f"--model {_typed(path)} compiles a model without a recipe.",
    )


def _typed(path: Path) -> str:
    """The path as ``--model`` takes it from a shell, with its ``./``."""
    text = str(path)
    return shlex.quote(text if text.startswith((".", "/", "~")) else f"./{text}")
