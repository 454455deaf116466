"""Pictures that are made up, as vision-language models take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.sample_images import normalized, pictures
from lepton_compile.runtime.loader_grids import feeds
from lepton_compile.runtime.loader_pictured import Pictured
from lepton_compile.runtime.loader_seer import PIXELS, counts

__all__ = ["made_up", "sample_grid", "seen_feed", "shown", "sized_feed", "tokens_of"]

GRIDS = ((512, (12, 10)), (64, (6, 5)), (0, (2, 1)))
"""Rows and columns of tokens of a picture of any size, by the longest sequence from there on: no
whole windows, so that what lies beyond the edge is seen."""
Array = npt.NDArray[Any]


def sample_grid(longest: int) -> tuple[int, int]:
    """Rows and columns of tokens of a picture of any size, where so many tokens have room."""
    return next(grid for least, grid in GRIDS if longest >= least)


def made_up(model: Any, count: int) -> Array:
    """Pictures (count, channels, rows, columns) for a model, of its size where it has one."""
    _, channels, height, width = model.inputs[PIXELS]["shape"]
    if grid := model.manifest["generation"]["pictures"].get("grid"):
        rows, columns = sample_grid(model.manifest["ranges"]["sequence"][1])
        unit = grid["patch"] * grid["merge"]
        channels, height, width = 3, rows * unit, columns * unit
    return normalized(pictures(count, height, width), model.manifest.get("image"), channels)


def tokens_of(model: Any, picture: Array) -> int:
    """How many tokens stand for a picture (channels, rows, columns)."""
    return counts(model.manifest["generation"]["pictures"], [picture])[0]


def shown(ids: Sequence[int], pixels: Array) -> Pictured:
    """A prompt as the loader makes it of images: ids, and tiles (tiles, channels, rows, columns)
    that stand in the places of some."""
    prompt = Pictured(ids)
    prompt.pixels, prompt.names = [*pixels], [b""] * len(pixels)
    return prompt


def seen_feed(model: Any, ids: Sequence[int], pixels: Array) -> dict[str, Array]:
    """What a model's run() takes of ids among which pictures stand, in as many rows as it takes."""
    told, rows = model.manifest["generation"]["pictures"], model.manifest["ranges"]["batch"][0]
    if told.get("grid"):
        return feeds(told, shown(ids, pixels))
    return {"input_ids": np.array([[*ids]] * rows), PIXELS: np.concatenate([pixels] * rows)}


def sized_feed(
    told: Mapping[str, Any], picture: Array, words: Array, longest: int
) -> dict[str, Array]:
    """Inputs by name of a graph for pictures of any size: one picture (channels, rows, columns),
    and ``words`` (tokens,) behind it, ``longest`` tokens at most.

    Args:
        told: ``pictures`` of the manifest's ``generation``.
    """
    before = [told["placeholder"]] * counts(told, [picture])[0]
    found = feeds(told, shown([*before, *map(int, words)][:longest], picture[None]))
    return {**found, "attention_mask": np.ones_like(found["input_ids"])}
