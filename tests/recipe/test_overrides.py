"""``--set key=value``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lepton_compile.api import read_recipe
from lepton_compile.errors import RecipeError
from lepton_compile.recipe import apply_overrides, load_recipe, parse_override
from lepton_compile.recipe.quantize import FORMATS


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("check=false", "check", False),
        ("quantize.group=64", "quantize.group", 64),
        ("gates.cosine=0.9", "gates.cosine", 0.9),
        ("gates.cosine=", "gates.cosine", None),
        ("target=[ort-cpu, trt]", "target", ["ort-cpu", "trt"]),
        ("shapes.batch = 1..4", "shapes.batch", "1..4"),
        ("model=hf:a/b@c=d", "model", "hf:a/b@c=d"),
    ],
)
def test_parsed_as_yaml_types_it(text: str, key: str, value: Any) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["check", "=1", "a..b=1", ".a=1", "a=[1", "a=b: c"])
def test_not_an_override(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_override(text)


def test_the_original_stays_as_it_is() -> None:
    data: dict[str, Any] = {"model": "m", "gates": {"cosine": 0.9}}
    changed = apply_overrides(data, {"gates.cosine": 0.5, "passes.disable": ["x"]})
    assert changed == {"model": "m", "gates": {"cosine": 0.5}, "passes": {"disable": ["x"]}}
    assert data == {"model": "m", "gates": {"cosine": 0.9}}


def test_a_format_opens_into_its_keys() -> None:
    changed = apply_overrides({"quantize": "int4"}, {"quantize.group": 64})
    assert changed == {"quantize": {**FORMATS["int4"], "group": 64}}


def test_whether_to_verify_opens_into_its_keys() -> None:
    data = {"model": "m", "verify": False}
    kept = load_recipe(data, {"verify.tokens": 7}).verify
    assert (kept.enabled, kept.tokens) == (False, 7)
    assert load_recipe(data, {"verify.enabled": True}).verify.enabled
    assert not load_recipe({"model": "m"}, dict([parse_override("verify=off")])).verify.enabled


@pytest.mark.parametrize("key", ["model.name", "quantize.group"])
def test_no_way_through_a_value(key: str) -> None:
    with pytest.raises(RecipeError, match="has no keys") as caught:
        apply_overrides({"model": "m", "quantize": "int5"}, {key: 1})
    assert caught.value.where == f"--set {key}"


def test_a_mistake_is_placed_at_the_override() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({"model": "m"}, {"shapes.batches": 3})
    assert caught.value.where == "--set shapes.batches"
    assert caught.value.hint == "Did you mean 'batch'?"


def test_a_section_that_an_override_makes_is_placed_at_it(tmp_path: Path) -> None:
    """It was placed in the file, which has no such key."""
    (tmp_path / "r.yaml").write_text("model: m\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml", {"gate.cosine": 0.9})
    assert caught.value.where == "--set gate.cosine"
    assert caught.value.hint == "Did you mean 'gates'?"


@pytest.mark.parametrize(
    ("given", "overrides", "where"),
    [
        ({"max_memory": "lots"}, {}, "--max-memory (in Python: max_memory=…)"),
        ({"target": ["ort-gpu"]}, {}, "--target (in Python: target=…)"),
        ({"quantize": "int8"}, {"quantize.bits": 5}, "--set quantize.bits"),
        ({"max_memory": "1GB"}, {"max_memory": "lots"}, "--set max_memory"),
    ],
)
@pytest.mark.parametrize("recipe", [None, {"model": "m"}], ids=["alone", "recipe"])
def test_a_mistake_is_where_it_was_typed(
    recipe: Any, given: dict[str, Any], overrides: dict[str, Any], where: str
) -> None:
    named = {"model": "m"} if recipe is None else {}
    with pytest.raises(RecipeError) as caught:
        read_recipe(recipe, overrides, **named, **given)
    assert caught.value.where == where


def test_a_keyword_without_an_option_is_told_where_it_replaces_a_value() -> None:
    for recipe, where in (({"model": "m", "pooling": "mean"}, "pooling=…"), (None, "recipe")):
        named = {"model": "m"} if recipe is None else {}
        with pytest.raises(RecipeError) as caught:
            read_recipe(recipe, **named, pooling="most")
        assert caught.value.where == where
