"""The type of an engine's arithmetic, from the recipe and the model."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
import torch
import transformers

from lepton_compile.errors import RecipeError
from lepton_compile.pipeline.compute import compute_dtype, precision_of
from lepton_compile.recipe import load_recipe

FP16, BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
BERT = transformers.BertConfig()
GEMMA = transformers.Gemma3TextConfig()
LLAMA = transformers.LlamaConfig(dtype=torch.bfloat16)


def decided(config: Any = None, target: str = "trt-rtx", **recipe: Any) -> ir.DataType | None:
    made = load_recipe({"model": "./m", "target": target, **recipe})
    return compute_dtype(made, target, config)


@pytest.mark.parametrize(
    ("config", "expected"), [(BERT, FP16), (GEMMA, BF16), (LLAMA, BF16), (None, FP16)]
)
@pytest.mark.parametrize("quantize", ["none", "int8", "int4", "fp8"])
def test_the_model_decides(config: Any, expected: ir.DataType, quantize: str) -> None:
    assert decided(config, quantize=quantize) == expected


def test_the_recipe_decides_first() -> None:
    assert decided(GEMMA, quantize="fp16") == FP16
    assert decided(BERT, quantize="bf16") == BF16
    assert decided(GEMMA, quantize="int4", compute="fp16") == FP16
    assert decided(BERT, compute="fp32") is None


def test_onnxruntime_takes_bf16_for_its_range_alone() -> None:
    assert [decided(c, "ort-cuda") for c in (BERT, GEMMA, LLAMA)] == [FP16, BF16, FP16]
    assert decided(LLAMA, "ort-cuda", compute="bf16") == BF16


def test_the_cpu_computes_in_fp32() -> None:
    assert decided(GEMMA, "ort-cpu") is None


def test_two_words_for_one_thing() -> None:
    with pytest.raises(RecipeError, match="different types"):
        decided(compute="bf16", quantize="fp16")


@pytest.mark.parametrize(
    ("target", "recipe", "expected"),
    [
        ("ort-cpu", {}, "fp32"),
        ("ort-cpu", {"quantize": "int8"}, "int8"),
        ("trt-rtx", {}, "bf16"),
        ("trt-rtx", {"compute": "fp32"}, "fp32"),
        ("trt-rtx", {"quantize": "fp16"}, "fp16"),
        ("trt-rtx", {"quantize": "int4", "compute": "fp16"}, "int4"),
    ],
)
def test_an_engine_is_named_by_its_weights_else_by_its_arithmetic(
    target: str, recipe: dict[str, Any], expected: str
) -> None:
    made = load_recipe({"model": "./m", "target": target, **recipe})
    assert precision_of(made, target, GEMMA) == expected
