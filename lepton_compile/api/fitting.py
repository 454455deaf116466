"""The sample that weights are fitted to, and that scales of activations are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from lepton_compile.api.pictured import pictured_feed
from lepton_compile.api.pictures import PIXELS, pixels_for, sees
from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.encoder_decoder import SOUND, SOURCE_IDS, SOURCE_MASK, sound_shape
from lepton_compile.export.image_text import IMAGE_TEXT
from lepton_compile.numerics.sample_images import FITTED
from lepton_compile.numerics.sample_sound import heard
from lepton_compile.pipeline.plan import measures_cache, rounds_activations
from lepton_compile.progress import Step
from lepton_compile.recipe import Recipe

if TYPE_CHECKING:
    from lepton_compile.pipeline.energies import Energies
    from lepton_compile.pipeline.hessians import Hessians
    from lepton_passes.quant.calibration import Measure
    from lepton_passes.quant.quantize_cache import CacheMeasure
    from lepton_passes.quant.ranges import InputRange

__all__ = ["cache_measure_for", "energies_for", "fitting_feeds", "hessians_for", "measure_for"]

LENGTH = 256
SHARE = 4
"""Part of the memory ceiling that matrices may take: 1 / SHARE."""


def hessians_for(
    recipe: Recipe, model: ir.Model, source: Source, exported: ExportedModel, step: Step
) -> Hessians | None:
    """Sums over the inputs of linear layers, which run the sample when the first is asked for.

    ``None`` where nothing is fitted.

    Raises:
        RecipeError: there is no tokenizer, so no text to fit to.
    """
    if recipe.quantize.algorithm != "gptq":
        return None
    if not _has_sample(source, exported):
        raise RecipeError(
            "gptq calibrates weights on a text, and this model comes without a tokenizer",
            where="quantize.algorithm",
            found="gptq",
            available=["rtn"],
            hint="quantize: int4 rounds to nearest; or add tokenizer.json to the model's folder",
        )
    from lepton_compile.pipeline.hessians import BUDGET, Hessians

    budget = BUDGET if recipe.max_memory is None else recipe.max_memory // SHARE
    return Hessians(
        model, lambda: fitting_feeds(source, exported), budget=min(BUDGET, budget), progress=step
    )


def energies_for(
    recipe: Recipe, model: ir.Model, source: Source, exported: ExportedModel, step: Step
) -> Energies | None:
    """Mean squares of the inputs of linear layers, which run the sample when the first is asked
    for. ``None`` where nobody weighs them.

    Raises:
        RecipeError: there is no tokenizer, so no text to weigh them on.
    """
    algorithm = recipe.quantize.algorithm
    if algorithm not in ("weighted", "awq", "auto"):
        return None
    if not _has_sample(source, exported):
        raise RecipeError(
            f"{algorithm} weighs errors on a text, and this model comes without a tokenizer",
            where="quantize" if algorithm == "auto" else "quantize.algorithm",
            found=algorithm,
            available=["int8", "int4"],
            hint="quantize: int8 or int4 round to nearest; or add tokenizer.json to the model's "
            "folder",
        )
    from lepton_compile.pipeline.energies import Energies

    return Energies(model, lambda: fitting_feeds(source, exported), progress=step)


def measure_for(
    recipe: Recipe, target: str, source: Source, exported: ExportedModel, step: Step
) -> Measure | None:
    """What runs the sample to see the ranges of activations; ``None`` where none are rounded.

    Raises:
        RecipeError: there is no tokenizer, so no text to run.
    """
    if not rounds_activations(recipe, target, decoder=exported.task == "text-generation"):
        return None
    if not _has_sample(source, exported):
        raise RecipeError(
            "scales of activations are calibrated on a text, and the model has no tokenizer",
            where="quantize",
            found=recipe.quantize.format,
            hint="quantize: {bits: 8, activations: none} rounds weights alone; or add "
            "tokenizer.json to the model's folder",
        )

    def measure(model: ir.Model) -> Mapping[str, InputRange]:
        from lepton_compile.pipeline.calibrate import calibrate

        return calibrate(model, fitting_feeds(source, exported), progress=step)

    return measure


def cache_measure_for(
    recipe: Recipe, target: str, source: Source, exported: ExportedModel, step: Step
) -> CacheMeasure | None:
    """What runs the sample to see the ranges of keys and values; ``None`` where a cache is not
    rounded, or as numbers come (``ort-cpu``).

    Raises:
        RecipeError: the model has no cache, or no tokenizer and so no text to run.
    """
    if recipe.quantize.cache == "same":
        return None
    if not exported.caches:
        raise RecipeError(
            f"a model for {exported.task} has no KV cache",
            where="quantize.cache",
            found=recipe.quantize.cache,
            available=["same"],
        )
    if not measures_cache(recipe, target):
        return None
    if not _has_sample(source, exported):
        raise RecipeError(
            "scales of a KV cache are calibrated on a text, and the model has no tokenizer",
            where="quantize.cache",
            found=recipe.quantize.cache,
            available=["same"],
            hint="add tokenizer.json to the model's folder",
        )

    def measure(model: ir.Model) -> Mapping[str, InputRange]:
        from lepton_compile.pipeline.cache_ranges import cache_ranges

        return cache_ranges(model, fitting_feeds(source, exported), step)

    return measure


def _has_sample(source: Source, exported: ExportedModel) -> bool:
    """Whether there is something to run: pictures, or a text that a tokenizer can read."""
    return sees(exported) or source.tokenizer_folder() is not None


def fitting_feeds(
    source: Source, exported: ExportedModel, length: int = LENGTH
) -> list[dict[str, np.ndarray]]:
    """The text for calibration, which verification never reads; one part of at most ``length``
    tokens a feed, none padded. Or pictures, likewise."""
    if sees(exported):
        pixels = pixels_for(source, exported, FITTED, which="calibration")
        return [{PIXELS: pixels[n : n + 1]} for n in range(len(pixels))]
    from lepton_compile.numerics.sample_text import calibration_segments, within

    names = {value.name for value in exported.model.graph.inputs}
    feeds: list[dict[str, np.ndarray]] = []
    tokenizer = source.tokenizer()
    vocabulary = getattr(source.config().get_text_config(), "vocab_size", None)
    parts = calibration_segments(tokenizer, min(length, exported.length))
    known = within(vocabulary, tokenizer, parts)
    if exported.task == IMAGE_TEXT:
        numbered = ((np.array(part), n % FITTED) for n, part in enumerate(known))
        return [pictured_feed(source, exported, *each, "calibration") for each in numbered]
    for part in known:
        ids = np.array([part], dtype=np.int64)
        feed: dict[str, np.ndarray] = {"input_ids": ids}
        if "attention_mask" in names:
            feed["attention_mask"] = np.ones_like(ids)
        if SOUND in names:
            feed[SOUND] = heard(sound_shape(source.config()), 1, seed=len(feeds))
        if SOURCE_IDS in names:  # what is read is written again
            feed |= {SOURCE_IDS: ids, SOURCE_MASK: np.ones_like(ids)}
        if "token_type_ids" in names:
            feed["token_type_ids"] = np.zeros_like(ids)
        if "position_ids" in names:
            feed["position_ids"] = np.arange(len(part))[None]
        feeds.append(feed)
    return feeds
