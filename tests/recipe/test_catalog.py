"""Every shipped recipe loads, keeps to its size, and is found by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import Recipe, catalog, load_recipe
from lepton_compile.recipe.problems import _model

README = Path(__file__).parents[2] / "recipes" / "README.md"


def test_the_sample_models_are_there() -> None:
    assert {"minilm/ort-cpu-int8", "gemma3-270m/ort-cpu-int4"} <= set(catalog.names())


@pytest.mark.parametrize("name", catalog.names())
def test_loads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.task is not None
    (target,) = recipe.target
    precision, *algorithm = name.partition("/")[2].removeprefix(f"{target}-").split("-")
    assert recipe.quantize.format == precision.replace("fp32", "none")
    assert algorithm in ([], [recipe.quantize.algorithm])
    assert len(catalog.find(name).read_text().splitlines()) <= 25


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no such recipe") as caught:
        load_recipe("minilm/ort-cpu-int9")
    assert caught.value.available[0] == "minilm/ort-cpu-int8"


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key of the schema, dotted; keys of a section instead of the section."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        listed = "[]" if "tuple" in str(field.annotation) else ""
        if inner is None or name in ("quantize", "rules", "verify"):
            found.add(prefix + name)
        if name == "per_target":  # its keys are rows of their own already
            found.add(prefix + name)
        elif inner is not None:
            found |= keys(inner, f"{prefix}{name}{listed}.")
    return found


def test_the_readme_has_a_row_for_every_key_and_no_other() -> None:
    rows = re.findall(r"^\| `([\w.\[\]]+)` \|", README.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(keys(Recipe))
