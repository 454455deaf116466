"""The type of an engine's arithmetic: the recipe's word, else what the model was made in."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import Recipe

__all__ = ["compute_dtype", "precision_of"]

_TYPES = {"fp32": None, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
# Families whose activations leave the range of fp16, whatever their files say.
_WIDE_RANGE = ("gemma",)


def compute_dtype(recipe: Recipe, target: str, config: Any = None) -> ir.DataType | None:
    """FLOAT16 or BFLOAT16, ``None`` for fp32.

    The CPU computes in fp32. Elsewhere ``compute`` decides, then ``quantize: fp16`` or ``bf16``,
    then the model: bf16 where it was trained in that, or needs its range, else fp16. On ort-cuda
    training in bf16 is no reason, only the range is: more of its kernels know fp16.

    Args:
        config: the transformers configuration; left out, nothing is known of the model.

    Raises:
        RecipeError: ``compute`` and ``quantize`` name different types.
    """
    if target == "ort-cpu":
        return None
    # `none` says how weights are stored, not what is computed with them.
    said = recipe.quantize.format if recipe.quantize.format in ("fp16", "bf16") else None
    if recipe.compute != "auto":
        if said is not None and said != recipe.compute:
            raise RecipeError(
                "compute and quantize name different types",
                where="compute",
                found=f"compute: {recipe.compute}, quantize: {said}",
                hint="leave one of the two out",
            )
        return _TYPES[recipe.compute]
    return _TYPES[said] if said is not None else _TYPES[_of_model(config, target)]


def precision_of(recipe: Recipe, target: str, config: Any = None) -> str:
    """Precision of an engine in the words of the manifest: its weights', else its arithmetic's."""
    if recipe.quantize.algorithm != "none" and recipe.quantize.format not in _TYPES:
        return recipe.quantize.format
    dtype = compute_dtype(recipe, target, config)
    return next(name for name, each in _TYPES.items() if each == dtype)


def _of_model(config: Any, target: str) -> str:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    family = str(getattr(text, "model_type", ""))
    if family.startswith(_WIDE_RANGE):
        return "bf16"
    if target == "ort-cuda":
        return "fp16"
    return "bf16" if str(getattr(text, "dtype", "")).endswith("bfloat16") else "fp16"
