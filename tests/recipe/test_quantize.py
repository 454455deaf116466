"""What a recipe says of precision, and which bits a parameter gets by it."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import load_recipe
from lepton_compile.recipe.quantize import Quantize

GROUPED = {
    "bits": 4,
    "group": 64,
    "rules": [
        {"match": "a.*", "bits": 4, "group": 128},
        {"match": "b.*", "bits": 8},
        {"match": "c.*", "bits": "none"},
        {"match": "d.*", "bits": 4},
        {"match": "a.*", "bits": "none"},  # the first holds
    ],
}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"bits": 8, "group": 32}, "group is for bits: 4; int8 has one scale for each output row"),
        ({"bits": 4, "rules": [{"match": "*", "bits": 8, "group": 32}]}, "group is for bits: 4"),
        ({"algorithm": "rtn"}, "algorithm: rtn needs bits: 4 or bits: 8"),
        ({"algorithm": "weighted"}, "algorithm: weighted needs bits: 4 or bits: 8"),
        ({"algorithm": "awq", "bits": 8}, "algorithm: awq needs bits: 4; 8 bits lose too little"),
        ({"algorithm": "gptq"}, "algorithm: gptq needs bits: 4"),
        ({"algorithm": "fp16", "bits": 8}, "bits is for algorithm: rtn, .* or stored, not fp16"),
        ({"bits": 4, "activations": "static"}, "activations: static is for weights of 8 bits"),
        ({"algorithm": "fp8", "embedding": "int8"}, "with fp8, 8 bits are fp8"),
        ({"bits": 4, "rules": [{"match": "", "bits": 8}]}, "at least 1 character"),
        (4, "unknown precision 4"),
        ([4], "should be a valid dictionary"),
    ],
)
def test_refuses(said: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Quantize.model_validate(said)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (None, "none"),
        ({"cache": "fp8"}, "none"),
        ({"algorithm": "awq", "bits": 4}, "int4"),
        ({"algorithm": "weighted", "bits": 8}, "int8"),
        ({"algorithm": "stored", "bits": 4}, "stored"),
        ({"algorithm": "fp8", "embedding": "int4", "activations": "static"}, "fp8"),
        ({"bits": 8, "embedding": "int8", "activations": "static"}, "int8"),
        (GROUPED, "int4"),
    ],
)
def test_in_a_word(said: Any, word: str) -> None:
    assert Quantize.model_validate(said).format == word


@pytest.mark.parametrize(
    ("said", "name", "of_layer", "of_table"),
    [
        ("none", "w", None, None),
        ("fp16", "w", None, None),
        ("int8", "w", (8, None), (8, None)),
        ("int4", "w", (4, 32), (4, 32)),
        ("auto", "w", (8, None), (8, None)),
        ("stored", "w", (8, None), (8, None)),
        ("fp8", "w", (8, None), None),
        ({"algorithm": "fp8", "embedding": "int4"}, "w", (8, None), (4, 32)),
        ({"bits": 4, "group": 128, "embedding": "int8"}, "w", (4, 128), (8, None)),
        ({"bits": 8, "embedding": "int4"}, "w", (8, None), (4, 32)),
        ({"bits": 8, "embedding": "none"}, "w", (8, None), None),
        (GROUPED, "w", (4, 64), (4, 64)),
        (GROUPED, "a.w", (4, 128), (4, 128)),
        (GROUPED, "b.w", (8, None), (8, None)),
        (GROUPED, "c.w", None, None),
        (GROUPED, "d.w", (4, 64), (4, 64)),
    ],
)
def test_bits_of_a_parameter(said: Any, name: str, of_layer: Any, of_table: Any) -> None:
    quantize = Quantize.model_validate(said)
    assert quantize.weight(name) == of_layer
    assert quantize.weight(name, embedding=True) == of_table


@pytest.mark.parametrize(
    ("said", "name", "of_layer", "of_table"),
    [
        ("int4", "a.w", False, False),
        ({"bits": 4, "embedding": "int8"}, "a.w", False, True),
        (GROUPED, "a.w", True, True),
        (GROUPED, "w", False, False),
    ],
)
def test_whether_there_is_a_word_for_it(
    said: Any, name: str, of_layer: bool, of_table: bool
) -> None:
    quantize = Quantize.model_validate(said)
    assert (quantize.says(name), quantize.says(name, embedding=True)) == (of_layer, of_table)


@pytest.mark.parametrize(
    ("said", "may"),
    [
        ("none", False),
        ("bf16", False),
        ("int8", True),
        ("auto", True),
        ("stored", True),
        ({"algorithm": "none", "embedding": "int8"}, True),
        ({"algorithm": "none", "rules": [{"match": "*", "bits": 8}]}, True),
    ],
)
def test_whether_anything_comes_in_integers(said: Any, may: bool) -> None:
    assert Quantize.model_validate(said).may_have_integers is may


@pytest.mark.parametrize(
    ("word", "meant"), [("AWQ-4bit", "awq"), ("gptq", "gptq"), ("q4_k_m", None)]
)
def test_an_algorithm_for_a_precision_is_told_how_to_write_it(word: str, meant: str | None) -> None:
    with pytest.raises(RecipeError, match="unknown precision") as caught:
        load_recipe({"model": "m", "quantize": word})
    hint = f"quantize: {{algorithm: {meant}, bits: 4}}"
    assert (caught.value.hint == hint) == (meant is not None)
    assert "int4" in caught.value.available


def test_what_yaml_makes_of_off_is_told_how_to_write_it() -> None:
    with pytest.raises(RecipeError, match="unknown precision False") as caught:
        load_recipe({"model": "m", "quantize": False})
    assert caught.value.hint == "quantize: none"
