"""``quantize: auto``: what may be lost, the fp32 model to try it on, and the recipe it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from lepton_compile.api.demands import demands
from lepton_compile.api.fitting import fitting_feeds
from lepton_compile.api.memory import FP32, MemoryCeiling
from lepton_compile.api.task import pooling_of
from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel, Pooling, Source
from lepton_compile.numerics.tolerance import family_of, tolerance_for
from lepton_compile.progress import Step
from lepton_compile.recipe import Quantize, Recipe
from lepton_compile.scratch import give_back_freed

if TYPE_CHECKING:
    from lepton_compile.pipeline.energies import Energies
    from lepton_compile.pipeline.mixed import Objective

__all__ = ["budget_of", "chosen_bits"]

LENGTH = 128
TOKENS = 384
"""Tokens of a part of the calibration text that choices are measured on, and of all parts."""

MARGIN = 0.75
"""Part of the budget that a choice may use on the calibration text: on another it loses more or
less, and kernels round activations, too."""

HELD = 1.5
"""How often the size of the fp32 model is held: its weights, and what one text leaves in between;
squares of derivatives are on disk."""

PRECISION = "auto"


def chosen_bits(
    recipe: Recipe,
    model: ir.Model,
    source: Source,
    exported: ExportedModel,
    energies: Energies,
    ceiling: MemoryCeiling,
    step: Step,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with bits for each weight in place of ``auto``, and the choice as data.

    Args:
        model: the neutral graph.
        energies: of what its linear layers read.

    Raises:
        RecipeError: no PyTorch model to measure with, or no room for it.
    """
    from lepton_compile.export.reference import load_reference
    from lepton_compile.pipeline.mixed import decide

    lacks = ceiling.lacks(int(HELD * FP32 * exported.parameters))
    if source.kind == "onnx" or lacks:
        raise _impossible(lacks or "an ONNX file comes without the PyTorch model")
    energies.collect()
    step("loading the fp32 model", 0, 1)
    give_back_freed()
    module = load_reference(source, exported.task)
    extra = {"use_cache": False} if exported.cached else {}

    def run(feed: Mapping[str, np.ndarray]) -> Any:
        import torch

        return module(**{name: torch.from_numpy(array) for name, array in feed.items()}, **extra)

    quantize = recipe.quantize
    decision = decide(
        model,
        module,
        run,
        _objective(exported.task, pooling_of(recipe, source, exported.task), module),
        _some(fitting_feeds(source, exported, LENGTH)),
        energies,
        MARGIN * budget_of(recipe, exported.task),
        fixed=lambda name, table: quantize.says(name, embedding=table),
        step=step,
    )
    mapping = _with_own_words(decision.quantize, quantize)
    own = Quantize.model_validate(mapping)
    data = replace(decision, quantize=mapping).as_dict()
    return recipe.model_copy(update={"quantize": own}), data


def budget_of(recipe: Recipe, task: str) -> float:
    """The loss that the recipe's gates allow, those of the precision where it has none.

    The divergence adds to the logarithm of perplexity. By Pinsker's inequality the probability
    that moves is in the mean at most the root of half the divergence; here it may be as much as
    the share of answers that may change.
    """
    given, usual = demands(PRECISION, task, recipe.gates), tolerance_for(PRECISION, task)
    family = family_of(task)
    if family == "decoder":
        return math.log1p(_first(given.perplexity, usual.perplexity))
    if family == "embedding":
        return 1 - _first(given.cosine, usual.cosine)
    return 2 * (1 - _first(given.argmax, usual.argmax)) ** 2


def _first(given: float | None, usual: float | None) -> float:
    """A gate, or where it was dropped what the precision asks for."""
    found = given if given is not None else usual
    assert found is not None
    return found


def _objective(task: str, pooling: Pooling | None, module: Any) -> Objective:
    from lepton_compile.pipeline.mixed import Directions, Likelihood, Own, Weights

    if pooling is not None and pooling.logarithms:
        return Weights(pooling.kind, pooling.logarithms)
    if pooling is not None and pooling.kind == "own":
        return Own()
    if task == "image-feature-extraction" and pooling is None:
        return Own()
    if family_of(task) == "embedding":
        if pooling is None:
            return Directions()
        kind = None if pooling.kind == "tokens" else pooling.kind
        return Directions(kind, getattr(module, "sentence_dense", None))
    spans = task == "question-answering"
    return Likelihood(("start_logits", "end_logits") if spans else ("logits",))


def _some(feeds: Sequence[Mapping[str, np.ndarray]]) -> list[Mapping[str, np.ndarray]]:
    """Parts from all over the text, about ``TOKENS`` in all; every fourth picture."""
    if "input_ids" not in feeds[0]:
        return list(feeds[::4])
    total = sum(feed["input_ids"].size for feed in feeds)
    return list(feeds[:: max(1, round(total / TOKENS))])


def _with_own_words(chosen: Mapping[str, Any], quantize: Quantize) -> dict[str, Any]:
    """What was chosen, with what the recipe says itself in front of it."""
    own = quantize.model_dump(exclude_unset=True, exclude={"algorithm", "rules"})
    rules = [rule.model_dump(exclude_unset=True) for rule in quantize.rules]
    return {**chosen, **own, "rules": [*rules, *chosen["rules"]]}


def _impossible(why: str) -> RecipeError:
    return RecipeError(
        "bits are chosen by what they cost the fp32 model of PyTorch, which cannot be run here",
        where="quantize",
        found=f"auto; {why}",
        available=["int8", "int4", "rules that say it for each weight"],
        hint="raise --max-memory, or take quantize: int8 or int4",
    )
