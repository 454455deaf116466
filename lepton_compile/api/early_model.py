"""Mistakes that show once a recipe is held against its model, before anything is captured."""

from __future__ import annotations

from typing import Any

from lepton_compile.api.task import config_of, task_of
from lepton_compile.api.texts import check_recipe_text
from lepton_compile.engines.ort_cpu.kernels import Kernels, kernels_for
from lepton_compile.engines.tensorrt.capabilities import check_dtype
from lepton_compile.engines.tensorrt.flavour import FLAVOURS
from lepton_compile.errors import RecipeError
from lepton_compile.export import Source
from lepton_compile.export.encoder_decoder import PAIRS, SPEECH
from lepton_compile.export.generation import answers, generation, speech
from lepton_compile.export.image_text import IMAGE_TEXT, check_image_text, sees_itself
from lepton_compile.export.patch_grid import patch_grid
from lepton_compile.export.source.chat_template import chat_template
from lepton_compile.export.text_part import text_alone
from lepton_compile.numerics.tolerance import GENERATING
from lepton_compile.pipeline import precision_of
from lepton_compile.pipeline.compute import compute_dtype
from lepton_compile.recipe import Recipe, check_idle

__all__ = ["check_model", "own_kernels"]

OF_PAIRS, OF_MUTUAL = ("ort-cpu", "ort-cuda"), ("ort-cpu",)
WEIGHTS = {"int4": "INT4", "fp8": "FLOAT8E4M3FN"}


def check_model(recipe: Recipe, source: Source) -> None:
    """What needs the model, too, and nothing of its graph.

    Raises:
        RecipeError: something in the recipe changes nothing for the model's task, or there is
            nothing to verify on in its text.
        SourceError: a token of the model's settings is no number.
        EngineError: a GPU without arithmetic for a type.
    """
    known = recipe.task is not None or source.kind == "onnx"
    task = recipe.task if known else task_of(source)
    check_idle(recipe, None if known else task)
    if task in GENERATING and source.kind != "onnx":
        generation(source, task)
    if task in PAIRS:
        _check_pair(recipe, source, task)
    if task == IMAGE_TEXT:
        _check_parts(recipe, source, task, OF_MUTUAL if _mutual(source) else OF_PAIRS)
        check_image_text(source.config())
        _check_batch(recipe, source)
        chat_template(source.folder, processor=True)
    _check_precision(recipe, config_of(source))
    check_recipe_text(recipe, source)


def _check_batch(recipe: Recipe, source: Source) -> None:
    """Engines for pictures of any size are compared by one at a time.

    Raises:
        RecipeError: the engine would take no single row.
    """
    low, high = recipe.shapes.batch
    if low > 1 and patch_grid(source.config()) is not None:
        raise RecipeError(
            "an engine for pictures of any size takes single rows, too",
            where=recipe.place("shapes.batch"),
            found=f"{low}..{high}",
            available=[f"1..{high}"],
        )


def own_kernels(recipe: Recipe, source: Source) -> Kernels:
    """Kernels of our own for a model: some attention is computed by them alone.

    Raises:
        EngineError: as of ``kernels_for``.
    """
    mutual = _mutual(source) and (recipe.task or task_of(source)) == IMAGE_TEXT
    return kernels_for(recipe, needed=mutual)


def _mutual(source: Source) -> bool:
    """Whether it is of a kind in which the tokens of a picture see each other."""
    return source.kind != "onnx" and sees_itself(source.config())


def _check_pair(recipe: Recipe, source: Source, task: str) -> None:
    """What an encoder-decoder is not built for, or with. Errors: those of ``_check_parts``."""
    _check_parts(recipe, source, task, OF_PAIRS)
    answers(source)
    if task == SPEECH:
        speech(source)


def _check_parts(recipe: Recipe, source: Source, task: str, targets: tuple[str, ...]) -> None:
    """What a model of two graphs is not built for, or with.

    Raises:
        RecipeError: one of the targets, a precision, or an ONNX file.
    """
    others = [target for target in recipe.target if target not in targets]
    alone = text_alone(source.config()) if task == IMAGE_TEXT and source.kind != "onnx" else None
    if others:
        raise RecipeError(
            f"models for {task} are for ONNX Runtime alone{_on(targets)}",
            where=recipe.place("target"),
            found=", ".join(others),
            available=targets,
            hint=alone,
        )
    if source.kind == "onnx":
        raise RecipeError(
            "an ONNX file cannot be split into an encoder and a decoder",
            where=recipe.place("task"),
            found=task,
            hint="give the folder that it was exported from as the model",
        )
    if recipe.quantize.algorithm == "auto":
        raise RecipeError(
            "bits are chosen for encoders and for decoders, not for models of both",
            where=recipe.place("quantize"),
            found=f"auto, for {task}",
            available=["int8", "int4", "rules that say it for each weight"],
            hint=alone,
        )


def _on(targets: tuple[str, ...]) -> str:
    return ", on a CPU where tokens of a picture see each other" if targets == OF_MUTUAL else ""


def _check_precision(recipe: Recipe, config: Any) -> None:
    """What needs the model's configuration too: each GPU that is named takes the types asked for.

    The builder asks again, of the graph it is given.

    Raises:
        EngineError: a GPU without arithmetic for a type.
    """
    for target in recipe.target:
        flavour = FLAVOURS.get(target)
        if flavour is None:
            continue
        own = recipe.for_target(target)
        half = compute_dtype(own, target, config)
        weights = WEIGHTS.get(precision_of(own, target, config))
        for dtype in (half.name if half else None, weights, WEIGHTS.get(own.quantize.cache)):
            where = recipe.place(recipe.key_of("compute_capabilities", target))
            check_dtype(dtype, where, own.compute_capabilities, flavour)
