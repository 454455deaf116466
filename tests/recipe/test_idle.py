"""A key that changes nothing is told with its line, what has no use for it and what would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import Recipe, catalog, check_idle, load_recipe
from lepton_compile.recipe.effects import EFFECTS
from lepton_compile.recipe.schema import TARGETS, TASKS

DECODER = {"task": "text-generation"}
SPARSE = {"task": "sparse-embedding"}
TRT = {"target": "trt-rtx", **DECODER}
BOTH = {"target": ["ort-cpu", "trt-rtx"], **DECODER}
STATIC = {"quantize": {"bits": 8, "activations": "static"}}
WEIGHTS = {"quantize": {"bits": 8, "activations": "none"}}
CACHES = {"shapes": {"cache": [512, 2048]}}
INT8 = {"quantize": "int8"}
SEES = {"task": "image-feature-extraction"}

# Recipe -> the key, what is found, the first of what would give it an effect.
IDLE: list[tuple[dict[str, Any], str, str, str]] = [
    ({"compute": "fp16"}, "compute", "fp16, for ort-cpu", "target: ort-cuda"),
    ({"attention": "mask"}, "attention", "mask, for ort-cpu", "target: trt-rtx"),
    ({**TRT, "task": "fill-mask", "attention": "mask"}, "attention", "fill-mask", DECODER["task"]),
    ({"plugin": "aot", "target": "ort-cuda"}, "plugin", "aot, for ort-cuda", "target: trt-rtx"),
    ({"profiles": "joint"}, "profiles", "joint, for ort-cpu", "target: trt-rtx"),
    ({"compute_capabilities": [8.9]}, "compute_capabilities", "[8.9]", "target: trt-rtx"),
    ({"task": "fill-mask", "shapes": {"source": (1, 9)}}, "shapes.source", "fill-mask", "text2"),
    (CACHES, "shapes.cache", "[512, 2048], for ort-cpu", "target: trt-rtx"),
    ({**TRT, **CACHES, "task": "feature-extraction"}, "shapes.cache", "feature", "task: text-gen"),
    (STATIC, "quantize.activations", "static, for ort-cpu", "target: trt-rtx"),
    ({**STATIC, "target": ["ort-cpu", "ort-cuda"]}, "quantize.activations", "ort-cuda", "trt-rtx"),
    (WEIGHTS, "quantize.activations", "none, for ort-cpu", "target: ort-cuda"),
    (
        {"target": "trt", "task": "fill-mask", "quantize": {"cache": "int8"}},
        "quantize.cache",
        "int8, for fill-mask",
        "task: text-generation",
    ),
    ({"task": "fill-mask", "pooling": "mean"}, "pooling", "fill-mask", "task: feature-extraction"),
    ({"task": "fill-mask", "pooling": "max"}, "pooling", "fill-mask", "task: feature-extraction"),
    ({**SPARSE, "pooling": "cls"}, "pooling", "cls, for sparse", "task: feature-extraction"),
    ({"task": "feature-extraction", "pooling": "sum"}, "pooling", "sum, for feat", SPARSE["task"]),
    ({**SPARSE, "pooling": "none"}, "pooling", "none, for sparse", "task: feature-extraction"),
    ({**DECODER, "normalize": True}, "normalize", "true, for text-gen", "task: feature-extraction"),
    ({"pooling": "none", "normalize": True}, "normalize", "true, for ort-cpu", "pooling: auto"),
    ({**SEES, "pooling": "lasttoken"}, "pooling", "image-feature", "task: feature-extraction"),
    ({**SEES, "shapes": {"sequence": "1..9"}}, "shapes.sequence", "image-feature", "task: feature"),
    ({**SEES, "verify": {"tokens": 9}}, "verify.tokens", "9, for image-feature", "task: feature"),
    ({**SEES, "gates": {"argmax": 0.9}}, "gates.argmax", "0.9, for image", "task: fill-mask"),
    ({"kernels": "native"}, "kernels", "native, for ort-cpu", "quantize: int8"),
    ({**INT8, "target": "ort-cuda", "kernels": "native"}, "kernels", "ort-cuda", "target: ort-cpu"),
    ({"objective": "throughput"}, "objective", "throughput, for ort-cpu", "quantize: int8"),
    ({**INT8, "tactics": "default", "objective": "memory"}, "objective", "memory", "tactics: mea"),
    ({**INT8, "kernels": "native", "objective": "memory"}, "objective", "memory", "kernels: auto"),
    ({"target": "trt", "objective": "memory"}, "objective", "memory, for trt", "target: ort-cpu"),
    ({"target": "ort-cuda", "objective": "throughput"}, "objective", "ort-cuda", "target: ort-cpu"),
    ({"task": "fill-mask", "position_ids": True}, "position_ids", "true, for fill", "text-gen"),
    (
        {"task": "fill-mask", "gates": {"perplexity": 0.1}},
        "gates.perplexity",
        "0.1, for fill-mask",
        "task: text-generation",
    ),
    (
        {"task": "feature-extraction", "gates": {"argmax": 0.9}},
        "gates.argmax",
        "0.9, for feature-extraction",
        "task: fill-mask",
    ),
    ({"model": "a.onnx", "verify": {"text": "t"}}, "verify.text", "t, for a.onnx", "a folder"),
    ({"model": "a.onnx", "verify": {"tokens": 9}}, "verify.tokens", "9, for a.onnx", "a folder"),
    ({"model": "a.onnx", "gates": {"cosine": 0.9}}, "gates.cosine", "0.9", "a folder"),
    ({"model": "a.onnx", "gates": {"max_error": 0.9}}, "gates.max_error", "0.9", "a folder"),
    ({"model": "a.onnx", "adapter": "b"}, "adapter", "b, for a.onnx", "a folder"),
    ({"model": "a.onnx", "pooling": "cls"}, "pooling", "cls, for a.onnx", "a folder"),
    (
        {"target": ["ort-cpu", "trt"], "per_target": {"ort-cpu": {"attention": "mask"}}},
        "per_target.ort-cpu.attention",
        "mask, for ort-cpu",
        "target: trt-rtx",
    ),
    # What is left for the recipe's own word are the targets that have none.
    (
        {**BOTH, "attention": "mask", "per_target": {"trt-rtx": {"attention": "native"}}},
        "attention",
        "mask, for ort-cpu",
        "target: trt-rtx",
    ),
    ({**INT8, "per_target": {"ort-cpu": {"quantize": "int4"}}}, "quantize", "int8", "per_target.o"),
    ({"per_target": {"trt": {"quantize": "fp16"}}}, "per_target.trt", "quantize", "per_target.o"),
]


def told(data: dict[str, Any], overrides: dict[str, Any] | None = None) -> RecipeError:
    with pytest.raises(RecipeError, match="changes nothing here") as caught:
        load_recipe({"model": "m", **data}, overrides)
    return caught.value


@pytest.mark.parametrize(("data", "key", "found", "available"), IDLE)
def test_told(data: dict[str, Any], key: str, found: str, available: str) -> None:
    error = told(data)
    assert error.where == key
    assert found in str(error.found)
    assert available in error.available[0]
    assert str(error.hint).startswith("leave it out")


def test_a_text_beside_a_vision_model_is_told_what_is_compared() -> None:
    error = told({**SEES, "verify": {"text": "t"}})
    assert "vision models are compared on images" in error.message
    assert error.found == "t, for image-feature-extraction"


def test_every_row_of_the_table_is_told_of() -> None:
    keys = {key.rpartition("ort-cpu.")[2] for _, key, _, _ in IDLE}
    assert {row.key for row in EFFECTS} <= keys


@pytest.mark.parametrize(
    "data",
    [
        # Each serves one of the targets.
        {**BOTH, "attention": "mask", "profiles": "joint", "compute": "bf16"},
        {**BOTH, **CACHES, **STATIC, "compute_capabilities": [8.9], "objective": "throughput"},
        {**BOTH, **WEIGHTS, "kernels": "native"},
        {"target": ["ort-cpu", "trt"], "plugin": "aot", "task": "text-generation"},
        {**TRT, "shapes": {"cache": [2, 2048]}},
        # The task is the model's, and may be the right one.
        {"target": "trt", "attention": "mask", "pooling": "mean"},
        {"gates": {"perplexity": 0.1, "argmax": 0.9, "cosine": 0.9, "max_error": 0.1}},
        # What is asked for is so anyway.
        {"compute": "fp32", "kernels": "builtin", "tactics": "default", "objective": "latency"},
        {"compute": "auto", "attention": "auto", "plugin": "v3", "profiles": "split"},
        {"task": "fill-mask", "pooling": "none", "normalize": False, "position_ids": False},
        {"task": "fill-mask", "gates": {"perplexity": None}, "compute_capabilities": []},
        {"model": "a.onnx", "pooling": "auto", "verify": {"enabled": False}},
        {"target": "ort-cuda", **WEIGHTS},
        # Kept for a verification later.
        {"verify": {"enabled": False, "tokens": 9}, "gates": {"cosine": 0.9}},
        {**INT8, "kernels": "native"},
        {**INT8, "objective": "memory"},
        {**DECODER, "position_ids": True},
        {"pooling": "mean", "normalize": True, "task": "feature-extraction"},
        {"per_target": {"ort-cpu": {"attention": None, "plugin": None}}},  # nothing is written
    ],
)
def test_left_alone(data: dict[str, Any]) -> None:
    load_recipe({"model": "m", **data})


def test_a_task_that_the_model_says_counts_as_one_that_is_written() -> None:
    recipe = load_recipe({"model": "m", "pooling": "mean"})
    check_idle(recipe, "feature-extraction")
    with pytest.raises(RecipeError, match="only feature extraction has") as caught:
        check_idle(recipe, "fill-mask")
    assert caught.value.found == "mean, for fill-mask"


def test_the_line_is_told_and_all_keys_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ncompute: fp16\nverify: {tokens: 9}\n")
    with pytest.raises(RecipeError, match="compute changes nothing here") as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}:2"
    path.write_text("model: m.onnx\nverify:\n  tokens: 9\ncompute: fp16\n")
    with pytest.raises(RecipeError, match=r"(?s)2 mistakes.*r.yaml:3: verify.*r.yaml:4: compute"):
        load_recipe(path)


SHARED = {
    "model": "m",
    "target": "trt-rtx",
    "task": "text-generation",
    "attention": "mask",
    "compute": "fp16",
    "shapes": {"cache": [512, 2048]},
    "gates": {"perplexity": 0.1},
}


@pytest.mark.parametrize(
    ("data", "overrides"),
    [
        (SHARED, {"target": ["ort-cpu"]}),
        (SHARED, {"target": ["ort-cuda"], "quantize": "int8"}),
        (SHARED, {"task": "text-classification"}),
        (SHARED, {"target": ["ort-cpu"], "model": "a.onnx"}),
        ({**INT8, "kernels": "native"}, {"quantize": "none"}),
        ({**INT8, "objective": "throughput"}, {"tactics": "default"}),
        ({**BOTH, "per_target": {"trt-rtx": {"attention": "mask"}}}, {"target": ["ort-cpu"]}),
        # The model is no part of this file.
        ({"target": "trt", "attention": "mask"}, {"model": "m", "target": ["ort-cpu"]}),
        # An override may give it the effect, too.
        ({"attention": "mask"}, {"model": "m", "target": ["trt"]}),
    ],
)
def test_a_file_is_shared_by_builds(data: dict[str, Any], overrides: dict[str, Any]) -> None:
    recipe = load_recipe({"model": "m", **data}, overrides)
    assert load_recipe(recipe) == recipe
    load_recipe(recipe, {"check": False})


def test_what_is_overridden_is_judged_as_it_is() -> None:
    to_cpu = {"target": ["ort-cpu"]}
    assert told(SHARED, {**to_cpu, "attention": "native"}).where == "--set attention"
    assert told({"attention": "mask"}, to_cpu).where == "attention"
    assert told({"attention": "mask"}, {"target": ["ort-cuda"]}).where == "attention"
    own = {**INT8, "target": "ort-cpu"}
    assert told({"per_target": {"ort-cpu": INT8}}, own).where == "--set quantize"
    other = {"verify": {"tokens": 9}}
    assert told({"model": "m.onnx", "verify": {"text": "t"}}, other).where == "--set verify"


@pytest.mark.parametrize("name", catalog.names())
def test_shipped_recipes_say_nothing_idle(name: str) -> None:
    for target in TARGETS:
        load_recipe(name, {"target": [target], "quantize": "int8"})
    for task in TASKS:
        load_recipe(name, {"task": task})
    assert isinstance(load_recipe(name), Recipe)
