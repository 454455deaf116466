"""YAML into data, with a place for every key."""

from __future__ import annotations

import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lepton_compile.errors import RecipeError
from lepton_compile.recipe.document import parse_document

WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8).map(lambda word: f"k{word}")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


def test_places() -> None:
    document = parse_document("a: 1\nb:\n  c: [x,\n    y]\n", "r.yaml")
    assert document.data == {"a": 1, "b": {"c": ["x", "y"]}}
    assert document.place(("a",)) == "r.yaml:1"
    assert document.place(("b", "c")) == "r.yaml:3"
    assert document.place(("b", "c", 1)) == "r.yaml:4"
    assert document.place(("b", "missing")) == "r.yaml:2"
    assert document.place(("missing",)) == "r.yaml"


def test_aliases_are_followed() -> None:
    assert parse_document("a: &x {b: 1}\nc: *x\n", "r").data == {"a": {"b": 1}, "c": {"b": 1}}


def test_dates_stay_text() -> None:
    assert parse_document("a: 2024-01-02", "r").data == {"a": "2024-01-02"}


@given(st.dictionaries(WORDS, TREES, max_size=4))
def test_reads_what_yaml_writes(data: dict[str, object]) -> None:
    assert parse_document(yaml.safe_dump(data), "r").data == data


@given(st.text(max_size=80))
def test_any_text_gives_data_or_our_error(text: str) -> None:
    try:
        data = parse_document(text, "r").data
    except RecipeError:
        return
    assert isinstance(data, dict)


@pytest.mark.parametrize(
    "text", ['!!int ""', "!!int '-'", '!!float ""', "!!bool maybe", "!!int 0b", "9" * 5000]
)
def test_values_that_are_none_of_their_type(text: str) -> None:
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        parse_document(f"a: 1\nb: {text}", "r")
    assert caught.value.where == "r:2"


@pytest.mark.parametrize(
    "text", ["a: !!python/object:os.system x", "a: !!binary aGk=", "a: !x 1", "!!set {a}"]
)
def test_no_tags(text: str) -> None:
    with pytest.raises(RecipeError, match="Tags"):
        parse_document(text, "r")
