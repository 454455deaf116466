"""The recipes that ship with the project, by name: ``minilm/ort-cpu-int8``."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

from lepton_compile.errors import RecipeError

__all__ = ["find", "names"]


def names() -> dict[str, Path]:
    """Path of each shipped recipe, by name, in alphabetical order."""
    if find_spec("lepton_recipes") is None:
        return {}
    with as_file(files("lepton_recipes")) as root:
        found = {p.relative_to(root).with_suffix("").as_posix(): p for p in root.glob("*/*.yaml")}
    return dict(sorted(found.items()))


def find(name: str) -> Path:
    """The file of the recipe ``name``.

    Raises:
        RecipeError: there is none; the nearest names are given.
    """
    known = names()
    if name in known:
        return known[name]
    nearest = get_close_matches(name, known, n=3, cutoff=0.4)
    raise RecipeError(
        "There is no such recipe, neither a file nor a shipped one.",
        found=name,
        available=nearest or list(known),
        hint="`lepton-compile recipes` lists all.",
    )
