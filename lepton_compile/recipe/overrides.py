"""``--set key=value``: replace single values of a recipe, by dotted key."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lepton_compile.errors import RecipeError
from lepton_compile.recipe.document import parse_scalar
from lepton_compile.recipe.quantize import FORMATS

__all__ = ["OPTIONS", "apply_overrides", "option_of", "parse_override"]

# Keys that commands have an option for; Python takes each as a keyword.
OPTIONS = ("model", "adapter", "task", "target", "quantize", "tactics", "max_memory")


def option_of(key: str) -> str:
    """The place of a key that is in no file, as a shell and as a caller from Python know it."""
    keyword = f"{key}=…"
    return f"--{key.replace('_', '-')} (in Python: {keyword})" if key in OPTIONS else keyword


def parse_override(text: str) -> tuple[str, Any]:
    """``quantize.group=64`` as the key and the value, typed as YAML types it.

    Raises:
        RecipeError: no ``=``, no key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise RecipeError("An override is not of the form key=value.", where="--set", found=text)
    return key.strip(), parse_scalar(value.strip())


def apply_overrides(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the recipe's data with each dotted key set.

    Sections that are missing are made, and ``quantize: int4`` or ``verify: false`` opens into its
    mapping when a key inside it is set. Whether the keys exist is checked afterwards, with the
    whole recipe.

    Raises:
        RecipeError: a key leads through something that is not a mapping.
    """
    result: dict[str, Any] = copy.deepcopy(dict(data))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = result
        for depth, name in enumerate(parents):
            inner = section.get(name)
            if inner is None:
                inner = {}
            elif name == "quantize" and isinstance(inner, str) and inner in FORMATS:
                inner = dict(FORMATS[inner])
            elif name == "verify" and isinstance(inner, bool):
                inner = {"enabled": inner}
            if not isinstance(inner, dict):
                raise RecipeError(
                    "An override leads through a value that has no keys.",
                    where=f"--set {key}",
                    found=f"{'.'.join(parents[: depth + 1])}: {inner!r}",
                )
            section[name] = inner
            section = inner
        section[last] = value
    return result
