"""From a recipe to passes: which run, in which order, with which settings.

TensorRT's builders have arithmetic in fp8 and static scales, and no int8 scales by block. They take
types at their word, where kernels of onnxruntime widen inside. They stack plain matrices
themselves, and of those stacked by us would keep both: 130 MB of 690 in a plan of Gemma 3 270M in
bf16. Quantized ones they keep twice if they come apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import Recipe
from lepton_compile.recipe.quantize import Quantize
from lepton_compile.recipe.schema import TENSORRT
from lepton_passes.catalog import CATALOG, Entry
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort.byte_cache import LowerByteCache
from lepton_passes.lowering.ort.choices import Choices, Choose
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_passes.match import BLOCK
from lepton_passes.quant.calibration import Calibration, Measure
from lepton_passes.quant.quantize_cache import CACHE_TYPES, CacheMeasure, QuantizeCache
from lepton_passes.quant.scaled import ScaledEnergies
from lepton_passes.settings import Settings

from .compute import compute_dtype
from .pass_names import check_names

__all__ = ["cache_type", "measures_cache", "passes_for", "rounds_activations"]

WEIGHT_FORMATS = ("none", "int8", "int4")
ROUNDED = ("rtn", "weighted", "awq", "gptq")
HALF_FORMATS = ("fp16", "bf16")
OF_CPU = ("auto", "stored")
# Weights that share a scale in our own kernels, which round activations by 32 all the same. With
# 128 in place of 64, prompts of Gemma 3 270M take 0.96 of the time (Zen 5), and the KL divergence
# from fp32 is 0.0049 in place of 0.0044.
OWN_BLOCK = 128


def passes_for(
    recipe: Recipe,
    target: str = "ort-cpu",
    *,
    length: int | None = None,
    config: Any = None,
    hessians: Mapping[str, np.ndarray] | None = None,
    energies: Mapping[str, np.ndarray] | None = None,
    measure: Measure | None = None,
    native: bool = False,
    cache_measure: CacheMeasure | None = None,
    choose_kernels: Choose | None = None,
) -> list[LeptonPass]:
    """New passes for a recipe and one of its targets, in the order of the catalog.

    Args:
        length: longest sequence of the exported model, the capacity of a static cache; left out,
            the recipe's.
        config: transformers configuration, which has a say in what the target computes in.
        hessians: of the inputs of linear layers, for ``algorithm: gptq``; without them its pass
            declines every weight, which are then rounded to nearest.
        energies: mean squares of the same inputs, for ``weighted`` and ``awq``; likewise.
        measure: ranges of what 8-bit layers read, which are then rounded, too; without it they
            are not.
        native: the engine comes with our own CPU kernels.
        cache_measure: ranges of what goes into a cache of 8 bits; without it they are all 1.
        choose_kernels: of quantized linear layers; without it a fixed rule does.

    Raises:
        RecipeError: ``passes.disable`` or ``passes.expect`` name something that does not exist, or
            no pass makes the precision for this target.
    """
    check_names(recipe, target)
    choose, half = _choose(recipe, target), compute_dtype(recipe, target, config)
    own = native and LowerNativeLinear.name not in recipe.passes.disable
    settings = Settings(
        choose=choose,
        hessians=(hessians or {}) if recipe.quantize.algorithm == "gptq" else None,
        energies=_energies(recipe.quantize, energies or {}),
        eight=ir.DataType.FLOAT8E4M3FN if recipe.quantize.algorithm == "fp8" else ir.DataType.INT8,
        longest_block=0 if target in TENSORRT else OWN_BLOCK if own else BLOCK,
        calibration=Calibration(measure) if measure is not None else None,
        # Level 4 computes in int8, for which kernels of GPUs have no use.
        accuracy_level=4 if target == "ort-cpu" else 0,
        dynamic=target != "ort-cuda",
        half=half,
        islands=target in TENSORRT,
        attention=recipe.attention,
        capacity=length or (recipe.shapes.sequence[1] if recipe.shapes.sequence else None),
        rooms=recipe.shapes.cache,
        stacks=target not in TENSORRT or choose is not None,
        native=native,
        choices=Choices(choose_kernels) if choose_kernels is not None else None,
        cache=cache_type(recipe, target, half, native=native),
        cache_measure=cache_measure,
        lacking="TensorRT" if target in TENSORRT else "",
        own_forms=own,
        alike=target in TENSORRT and recipe.profiles == "joint",
    )
    return [each for entry in _entries(recipe, target) if (each := entry.instance(settings))]


def _entries(recipe: Recipe, target: str) -> list[Entry]:
    """Of the catalog, those for a target that the recipe does not leave out."""
    of_target = [each for each in CATALOG if not each.targets or target in each.targets]
    return [each for each in of_target if each.name not in recipe.passes.disable]


def _energies(
    quantize: Quantize, found: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray] | None:
    if quantize.algorithm == "awq":
        return ScaledEnergies(found)
    return found if quantize.algorithm == "weighted" else None


def rounds_activations(recipe: Recipe, target: str, *, decoder: bool) -> bool:
    """Whether layers with weights of 8 bits read rounded activations, for which a sample is run.

    Encoders in int8 do so unasked, and everything in fp8. The residual stream of a decoder has
    outliers that one int8 scale does not survive, so there it must be asked for.
    """
    quantize = recipe.quantize
    if target not in TENSORRT:
        return False
    if quantize.format not in ("int8", "fp8") or quantize.activations == "none":
        return False
    return quantize.activations == "static" or quantize.format == "fp8" or not decoder


def _check_cache_pass(recipe: Recipe, target: str) -> None:
    """What narrows caches is not left out where it is asked for."""
    name = LowerByteCache.name if target == "ort-cpu" else QuantizeCache.name
    if recipe.quantize.cache != "same" and name in recipe.passes.disable:
        raise RecipeError(
            f"passes.disable leaves out {name!r}, which quantize.cache asks for",
            where=recipe.key_of("passes.disable", target),
            found=f"{name}, quantize.cache: {recipe.quantize.cache}",
            hint="take one of them out",
        )


def measures_cache(recipe: Recipe, target: str) -> bool:
    """Whether scales of a cache are calibrated: ``ort-cpu`` makes them as numbers come."""
    return recipe.quantize.cache != "same" and target in TENSORRT


def cache_type(
    recipe: Recipe, target: str, half: ir.DataType | None, *, native: bool = False
) -> ir.DataType | None:
    """What a cache holds in place of what is computed in, ``None`` for the same.

    Args:
        native: the engine has our own CPU kernels.

    Raises:
        RecipeError: the target has no kernels for it, or not in what is computed in; or the pass
            that does it is left out.
    """
    wanted = CACHE_TYPES.get(recipe.quantize.cache)
    _check_cache_pass(recipe, target)
    if wanted is None or (native and wanted == ir.DataType.INT8):
        return wanted
    if target not in TENSORRT:
        raise RecipeError(
            f"{target} has no kernels for a cache of 8 bits",
            where=recipe.key_of("quantize.cache", target),
            found=recipe.quantize.cache,
            available=[
                "same",
                f"int8 and fp8 for {' and '.join(TENSORRT)}",
                "int8 for ort-cpu, beside quantized weights, by our own kernels",
            ],
            hint="kernels: native says why ours cannot be made here"
            if target == "ort-cpu" and recipe.quantize.may_have_integers
            else "beside other targets: per_target: {trt-rtx: {quantize: {cache: int8}}}",
        )
    if half is None:
        raise RecipeError(
            "the attention plugin, which has a cache of 8 bits, computes in halves alone",
            where=recipe.key_of("quantize.cache", target),
            found=f"{recipe.quantize.cache}, compute: fp32",
            available=["compute: fp16", "compute: bf16"],
        )
    return wanted


def _choose(
    recipe: Recipe, target: str
) -> Callable[[str, bool], tuple[int, int | None] | None] | None:
    quantize = recipe.quantize
    others: tuple[str, ...] = OF_CPU if target == "ort-cpu" else HALF_FORMATS
    others += ("fp8",) if target in TENSORRT else ()
    if quantize.algorithm not in ("none", *ROUNDED, *others):
        raise RecipeError(
            f"{target} has no passes for this precision of weights",
            where=recipe.key_of("quantize", target),
            found=quantize.format,
            available=(*WEIGHT_FORMATS, *others),
        )
    if (
        quantize.algorithm not in (*ROUNDED, "fp8", *OF_CPU)
        and not quantize.rules
        and quantize.embedding == "same"
    ):
        return None
    return lambda name, embedding: quantize.weight(name, embedding=embedding)
