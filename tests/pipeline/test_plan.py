"""From a recipe to passes."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.pipeline import expected_counts
from lepton_compile.pipeline.plan import cache_type, passes_for, rounds_activations
from lepton_compile.recipe import Recipe, load_recipe
from lepton_compile.recipe.quantize import Quantize
from lepton_passes.quant.calibration import unseen
from lepton_passes.quant.scale_inputs import ScaleInputs
from lepton_passes.quant.weight_int4_weighted import WeightInt4Weighted
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_stored import WeightStored


def _names(**recipe: object) -> list[str]:
    return [p.name for p in passes_for(load_recipe({"model": "./m", **recipe}))]


def test_fp32_quantizes_nothing() -> None:
    names = _names()
    assert names[-1] == "legal-ort-cpu"
    assert not any(name.startswith("weight-") for name in names)


@pytest.mark.parametrize("quantize", ["int8", "int4", {"algorithm": "none", "embedding": "int8"}])
def test_weights_are_quantized_when_asked_for(quantize: object) -> None:
    assert {"weight-int8", "weight-int4"} <= set(_names(quantize=quantize))


@pytest.mark.parametrize(
    ("target", "native", "disable", "block"),
    [
        ("ort-cpu", True, [], 128),
        ("ort-cpu", True, ["lower-native-linear"], 64),
        ("ort-cpu", False, [], 64),
        ("ort-cuda", False, [], 64),
        ("trt-rtx", False, [], None),
    ],
)
def test_blocks_of_8_bits_are_as_long_as_kernels_bear(
    target: str, native: bool, disable: list[str], block: int | None
) -> None:
    recipe = {"model": "m", "target": target, "quantize": "int8", "passes": {"disable": disable}}
    passes = passes_for(load_recipe(recipe), target, native=native)
    (rounds,) = (each for each in passes if isinstance(each, WeightInt8))
    rounds._decoder = True
    assert rounds.group_for(1024, None) == block


def test_awq_scales_inputs_and_weighs_what_they_are_then() -> None:
    passes = passes_for(load_recipe({"model": "m", "quantize": {"algorithm": "awq", "bits": 4}}))
    names = [each.name for each in passes]
    assert names.index("scale-inputs") < names.index("weight-int4-weighted")
    scaled, weighted = (
        next(each for each in passes if isinstance(each, kind))
        for kind in (ScaleInputs, WeightInt4Weighted)
    )
    assert weighted.seen is scaled.energies
    assert "scale-inputs" not in _names(quantize={"algorithm": "weighted", "bits": 4})


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


@pytest.mark.parametrize(("profiles", "cut"), [("split", True), ("joint", False)])
def test_layers_of_a_plan_with_one_profile_are_alike(profiles: str, cut: bool) -> None:
    """One of its own would have kernels of its own: 0.3 MB of Gemma's."""
    given = {"model": "./m", "target": ["ort-cpu", "trt-rtx"], "task": "text-generation"}
    recipe = load_recipe({**given, "profiles": profiles})
    names = [p.name for p in passes_for(recipe, "trt-rtx", length=64)]
    assert ("lower-last-layer" in names) == cut
    assert "lower-last-layer" in [p.name for p in passes_for(recipe, "ort-cpu")]


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


@pytest.mark.parametrize(
    ("passes", "key"),
    [
        ({"expect": {"activation-int8": 3}}, "passes.expect.activation-int8"),
        ({"disable": ["activation-int8"]}, "passes.disable"),
    ],
)
def test_a_pass_of_other_targets_is_told_with_them(passes: dict[str, object], key: str) -> None:
    with pytest.raises(RecipeError, match="no target of this recipe has a pass") as caught:
        _names(passes=passes)
    assert caught.value.where == key
    assert caught.value.found == "target: ort-cpu"
    assert caught.value.available == ("target: trt-rtx", "target: trt")


def test_what_a_file_says_of_a_target_that_an_override_dropped_is_no_mistake() -> None:
    passes = {"expect": {"activation-int8": 3, "attention": 2}, "disable": ["smooth-inputs"]}
    file = {"model": "m", "target": "trt-rtx", "quantize": "int8", "passes": passes}
    recipe = load_recipe(file, {"target": ["ort-cpu"]})
    assert "legal-ort-cpu" in [each.name for each in passes_for(recipe)]
    assert expected_counts(recipe) == {"attention": 2}
    assert expected_counts(load_recipe(file)) == passes["expect"]
    # What is typed beside it is judged as it is.
    typed = load_recipe(file, {"target": ["ort-cpu"], "passes.expect": {"activation-int8": 4}})
    with pytest.raises(RecipeError, match="no target of this recipe has a pass"):
        passes_for(typed)


ROUNDED = {"calibrate", "activation-int8", "activation-fp8"}


@pytest.mark.parametrize(
    ("quantize", "passes"),
    [
        ("int8", {"calibrate", "smooth-inputs", "weight-int8", "activation-int8"}),
        ("fp8", {"calibrate", "weight-fp8", "activation-fp8"}),
        ({"algorithm": "fp8", "embedding": "int4"}, {"weight-fp8", "weight-int4"}),
    ],
)
def test_tensorrt_computes_in_8_bits(quantize: object, passes: set[str]) -> None:
    recipe = load_recipe({"model": "./m", "target": "trt-rtx", "quantize": quantize})
    names = {p.name for p in passes_for(recipe, "trt-rtx", length=64, measure=unseen)}
    assert passes <= names
    assert ("weight-fp8" in names) != ("weight-int8" in names)
    assert not ROUNDED & {p.name for p in passes_for(recipe, "trt-rtx", length=64)}


@pytest.mark.parametrize(
    ("target", "quantize", "decoder", "rounds"),
    [
        ("trt-rtx", "int8", False, True),
        ("trt", "int8", True, False),
        ("trt", {"bits": 8, "activations": "static"}, True, True),
        ("trt-rtx", {"bits": 8, "activations": "none"}, False, False),
        ("trt-rtx", "fp8", True, True),
        ("trt-rtx", {"algorithm": "fp8", "activations": "none"}, True, False),
        ("trt-rtx", "int4", False, False),
        ("ort-cpu", "int8", False, False),
        ("ort-cuda", "int8", False, False),
    ],
)
def test_who_rounds_activations(target: str, quantize: object, decoder: bool, rounds: bool) -> None:
    recipe = load_recipe({"model": "./m", "target": target, "quantize": quantize})
    assert rounds_activations(recipe, target, decoder=decoder) == rounds


def test_static_scales_where_there_is_no_arithmetic_for_them_are_an_error() -> None:
    quantize = {"bits": 8, "activations": "static"}
    with pytest.raises(RecipeError, match="only TensorRT has arithmetic with static") as caught:
        load_recipe({"model": "./m", "quantize": quantize})
    assert caught.value.where == "quantize.activations"
    # Beside an engine that has it, it is for that one.
    both = load_recipe({"model": "./m", "target": ["ort-cpu", "trt-rtx"], "quantize": quantize})
    assert not rounds_activations(both, "ort-cpu", decoder=False)
    assert rounds_activations(both, "trt-rtx", decoder=False)


@pytest.mark.parametrize(
    ("cache", "dtype"), [("int8", ir.DataType.INT8), ("fp8", ir.DataType.FLOAT8E4M3FN)]
)
def test_a_cache_in_8_bits(cache: str, dtype: ir.DataType) -> None:
    recipe = load_recipe({"model": "m", "target": "trt-rtx", "quantize": {"cache": cache}})
    names = [each.name for each in passes_for(recipe, "trt-rtx")]
    assert "quantize-cache" in names
    assert cache_type(recipe, "trt-rtx", ir.DataType.FLOAT16) == dtype
    plain = load_recipe({"model": "m", "target": "trt-rtx", "quantize": "int8"})
    assert "quantize-cache" not in [each.name for each in passes_for(plain, "trt-rtx")]


@pytest.mark.parametrize(
    ("target", "compute", "said"),
    [
        ("ort-cpu", "auto", "ort-cpu has no kernels for a cache of 8 bits"),
        ("ort-cuda", "auto", "ort-cuda has no kernels for a cache of 8 bits"),
        ("trt", "fp32", "computes in halves alone"),
    ],
)
def test_a_cache_in_8_bits_where_there_is_none_is_an_error(
    target: str, compute: str, said: str
) -> None:
    given = {"target": target, "compute": compute, "quantize": {"cache": "int8"}}
    recipe = load_recipe({"model": "m", **given})
    with pytest.raises(RecipeError, match=said) as caught:
        passes_for(recipe, target)
    assert caught.value.where == "quantize.cache"


def test_a_precision_without_passes_is_an_error() -> None:
    with pytest.raises(RecipeError, match="no passes for this precision") as caught:
        passes_for(Recipe(model="./m", quantize=Quantize(algorithm="fp8")))
    assert caught.value.available == ("none", "int8", "int4", "auto", "stored")


def test_what_was_chosen_is_rounded_with_the_numbers_it_was_chosen_by() -> None:
    quantize = Quantize(algorithm="weighted", bits=8)
    names = [each.name for each in passes_for(Recipe(model="./m", quantize=quantize))]
    assert names.index("weight-int8") < names.index("weight-int4-weighted")
    assert names.index("weight-int4-weighted") < names.index("weight-int4")
    plain = passes_for(Recipe(model="./m", quantize=Quantize(algorithm="rtn", bits=4)))
    assert "weight-int4-weighted" not in [each.name for each in plain]


@pytest.mark.parametrize(
    ("target", "lacking"), [("ort-cpu", ""), ("ort-cuda", ""), ("trt-rtx", "TensorRT")]
)
def test_who_has_no_zero_points(target: str, lacking: str) -> None:
    recipe = Recipe.model_validate({"model": "m", "target": target, "quantize": "int4"})
    passes = passes_for(recipe, target)
    (found,) = [each for each in passes if isinstance(each, WeightStored)]
    assert found.lacking == lacking
    assert passes.index(found) < [each.name for each in passes].index("weight-int4")
