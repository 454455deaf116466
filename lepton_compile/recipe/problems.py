"""What is wrong with a recipe, said with file, line, key and the nearest valid key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lepton_compile.errors import RecipeError
from lepton_compile.recipe.document import Document, KeyPath
from lepton_compile.recipe.schema import Recipe

__all__ = ["all_at_once", "recipe_error"]

# pydantic's codes of the mistakes that have a sentence of their own.
TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "names_type": "a list of names, or one name",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def recipe_error(error: ValidationError, document: Document) -> RecipeError:
    """All mistakes that pydantic found, as one error."""
    mistakes = [_mistake(details, document) for details in error.errors(include_url=False)]
    return all_at_once(mistakes, document.name)


def all_at_once(mistakes: Sequence[RecipeError], name: str) -> RecipeError:
    """All mistakes of a recipe as one error; with one mistake, its parts are the error's fields."""
    if len(mistakes) == 1:
        return mistakes[0]
    by_line = sorted(mistakes, key=lambda mistake: _line(mistake.where))
    text = "\n".join(_indented(str(mistake)) for mistake in by_line)
    return RecipeError(f"The recipe has {len(mistakes)} mistakes.\n{text}", where=name)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _line(where: str | None) -> int:
    number = (where or "").rpartition(":")[2]
    return int(number) if number.isdigit() else 0


def _mistake(details: Any, document: Document) -> RecipeError:
    path: KeyPath = details["loc"]
    key, kind, given = ".".join(map(str, path)), details["type"], details["input"]
    where = document.place(path)
    if kind == "extra_forbidden":
        return _unknown_key(path, key, where)
    if kind == "missing":
        return RecipeError(f"The key {key!r} is missing.", where=where)
    if kind == "literal_error":
        return _unknown_value(path, key, where, given)
    if kind == "unknown_word":
        return _unknown_word(details, key, where)
    if kind in TYPES:
        return RecipeError(
            f"{key!r} takes {TYPES[kind]}.", where=where, found=f"{given!r} ({_kind(given)})"
        )
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    subject = f"{key!r}: " if key else ""
    found = None if isinstance(given, BaseModel | dict) else repr(given)
    hint = details.get("ctx", {}).get("hint")
    return RecipeError(f"{subject}{message}.", where=where, found=found, hint=hint)


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}
    if value is None:
        return "nothing"
    number = isinstance(value, int | float)
    return names.get(type(value), "a number" if number else f"of type {type(value).__name__}")


def _unknown_key(path: KeyPath, key: str, where: str) -> RecipeError:
    known = _keys(path[:-1])
    nearest = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    return RecipeError(
        f"Unknown key {key!r}.",
        where=where,
        found=str(path[-1]),
        available=known,
        hint=f"Did you mean {nearest[0]!r}?" if nearest else None,
    )


def _unknown_value(path: KeyPath, key: str, where: str, given: object) -> RecipeError:
    known = [str(value) for value in _literals(_annotation(path))]
    if isinstance(given, str) and given in known:  # as text what is a number
        return RecipeError(
            f"{key!r} takes a number.",
            where=where,
            found=f"{given!r} ({_kind(given)})",
            available=known,
            hint=f"write {given} without quotes",
        )
    nearest = get_close_matches(str(given), known, n=1, cutoff=0.5)
    return RecipeError(
        f"{key!r} does not take this value.",
        where=where,
        found=repr(given),
        available=known,
        hint=f"Did you mean {nearest[0]!r}?" if nearest else None,
    )


def _unknown_word(details: Any, key: str, where: str) -> RecipeError:
    """A word or number that a validator of ours does not know, with those that it does."""
    told, given = details["ctx"], str(details["input"])
    nearest = get_close_matches(given.lower(), told["known"], n=1)
    number = re.search(r"\d+", given)
    if number is not None and not nearest:  # 8, 8bit or q8_0, for int8
        nearest = [word for word in told["known"] if word.endswith(number[0])]
    return RecipeError(
        f"{key!r}: {details['msg']}.",
        where=where,
        found=repr(details["input"]),
        available=told["known"],
        hint=told["hint"] or (f"Did you mean {nearest[0]!r}?" if nearest else None),
    )


def _annotation(path: Sequence[str | int]) -> Any:
    """The declared type at a path of keys and list indices."""
    annotation: Any = Recipe
    for part in path:
        model = _model(annotation)
        if model is not None and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
        elif isinstance(part, int):
            annotation = get_args(annotation)[0] if get_args(annotation) else annotation
    return annotation


def _keys(path: Sequence[str | int]) -> list[str]:
    model = _model(_annotation(path))
    return list(model.model_fields) if model is not None else []


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model(a)) is not None), None)


def _literals(annotation: Any) -> list[Any]:
    """The values of a Literal, also inside an optional or a tuple."""
    arguments = get_args(annotation)
    if arguments and not any(isinstance(a, type) or get_args(a) for a in arguments):
        return [a for a in arguments if a is not Ellipsis]
    return [value for a in arguments for value in _literals(a)]
