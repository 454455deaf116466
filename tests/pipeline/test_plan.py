"""From a recipe to passes."""

from __future__ import annotations

import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.pipeline.plan import passes_for
from lepton_compile.recipe import Recipe, load_recipe
from lepton_compile.recipe.schema import Quantize


def _names(**recipe: object) -> list[str]:
    return [p.name for p in passes_for(load_recipe({"model": "./m", **recipe}))]


def test_fp32_quantizes_nothing() -> None:
    names = _names()
    assert names[-1] == "legal-ort-cpu"
    assert not any(name.startswith("weight-") for name in names)


@pytest.mark.parametrize("quantize", ["int8", "int4", {"algorithm": "none", "embedding": "int8"}])
def test_weights_are_quantized_when_asked_for(quantize: object) -> None:
    assert {"weight-int8", "weight-int4"} <= set(_names(quantize=quantize))


def test_gptq_comes_before_rounding_to_nearest() -> None:
    names = _names(quantize={"algorithm": "gptq", "bits": 4})
    assert names.index("weight-int4-gptq") + 1 == names.index("weight-int4")
    assert "weight-int4-gptq" not in _names(quantize="int4")


@pytest.mark.parametrize("target", ["ort-cuda", "trt-rtx", "trt"])
@pytest.mark.parametrize("quantize", ["none", "fp16", "bf16", "int8", "int4"])
def test_gpus_compute_in_half_precision(target: str, quantize: str) -> None:
    recipe = load_recipe({"model": "./m", "target": target, "quantize": quantize})
    names = [p.name for p in passes_for(recipe, target, length=64)]
    assert "lower-half-precision" in names
    assert ("weight-int8" in names) == (quantize in ("int8", "int4"))
    wide = load_recipe({"model": "./m", "target": target, "compute": "fp32"})
    assert "lower-half-precision" not in [p.name for p in passes_for(wide, target, length=64)]
    assert "lower-half-precision" not in _names()


@pytest.mark.parametrize("target", ["trt-rtx", "trt"])
@pytest.mark.parametrize(("quantize", "stacks"), [("none", False), ("int4", True)])
def test_tensorrt_stacks_plain_weights_itself(target: str, quantize: str, stacks: bool) -> None:
    recipe = load_recipe({"model": "./m", "target": target, "quantize": quantize})
    names = [p.name for p in passes_for(recipe, target, length=64)]
    assert ("packed-qkv" in names) == ("packed-gate-up" in names) == stacks
    assert {"packed-qkv", "packed-gate-up"} <= set(_names())


def test_disabled_passes_are_left_out() -> None:
    assert "packed-qkv" not in _names(passes={"disable": ["packed-qkv"]})


@pytest.mark.parametrize(
    ("passes", "near"),
    [
        ({"disable": ["packed-qvk"]}, "packed-qkv"),
        ({"expect": {"atention": 3}}, "attention"),
    ],
)
def test_unknown_names_are_errors_with_the_nearest(passes: dict[str, object], near: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _names(passes=passes)
    assert caught.value.hint == f"did you mean {near!r}?"
    assert near in caught.value.available


def test_a_precision_without_passes_is_an_error() -> None:
    with pytest.raises(RecipeError, match="no passes for this precision") as caught:
        passes_for(Recipe(model="./m", quantize=Quantize(algorithm="fp8")))
    assert caught.value.available == ("none", "int8", "int4")
