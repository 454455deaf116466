"""Vision-language models: samples for them, and room for a picture."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from lepton_compile.api.pictures import normal_pictures
from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.image_text import IMAGE_TEXT, PICTURES, placeholder
from lepton_compile.export.vision_part import preprocessing
from lepton_compile.numerics.pictured_sample import sample_grid, sized_feed
from lepton_compile.recipe import Recipe
from lepton_compile.report.pictures import most_tokens, picture_words, sized_words

__all__ = ["check_room", "most_pixels", "pictured_feed", "room_told"]

WORDS = 2
"""What is asked, and what is answered, at the least."""
ROOM = 3
"""Fourths of the longest sequence that one picture may take."""


def check_room(recipe: Recipe, source: Source, exported: ExportedModel) -> None:
    """Refuse sequences in which a picture leaves no room for words.

    Raises:
        RecipeError: of any form it has too many tiles, or too many tokens.
    """
    if exported.task != IMAGE_TEXT:
        return
    need = _fewest_tokens(source, exported) + WORDS
    if exported.length < need:
        raise RecipeError(
            "no picture has room in the longest sequence, beside a question and an answer",
            where=recipe.place("shapes.sequence"),
            found=f"{exported.length} tokens",
            available=[f"an end from {need} on, of which {need - WORDS} stand for a picture"],
        )


def most_pixels(exported: ExportedModel) -> int:
    """Of a picture of any size, so that words have room beside it: larger ones are made smaller.

    0 for other models.
    """
    if exported.grid is None:
        return 0
    return max(exported.length * ROOM // 4, 1) * exported.grid.unit**2


def _fewest_tokens(source: Source, exported: ExportedModel) -> int:
    """Of a picture that takes the fewest."""
    made = preprocessing(source)
    if exported.grid is None:
        return _fewest_tiles(source) * exported.picture_tokens
    least = made.pixels.least if made is not None and made.pixels else 1
    return -(-least // exported.grid.unit**2)


def _fewest_tiles(source: Source) -> int:
    """Of a picture whose form makes the fewest; the whole is one more where there are several."""
    made = preprocessing(source)
    if made is None or made.tiles is None or made.tiles.most == 1:
        return 1
    least = made.tiles.least or -(-made.tiles.edge // made.size[0])
    return least + (least > 1)


def room_told(source: Source, exported: ExportedModel) -> str:
    """How many tokens a picture takes, in words; nothing of other models."""
    if exported.task != IMAGE_TEXT:
        return ""
    made = preprocessing(source)
    if exported.grid is not None:
        most, unit = most_pixels(exported), exported.grid.unit
        sizes = made.pixels.within(most, unit) if made is not None and made.pixels else None
        how = sizes.entry() if sizes is not None else {"most": most}
        return sized_words(most_tokens(how, unit), exported.length)
    most = made.tiles.most if made is not None and made.tiles is not None else 1
    return picture_words(exported.picture_tokens, most, exported.length)


def pictured_feed(
    source: Source, exported: ExportedModel, ids: np.ndarray, picture: int, which: str = "sample"
) -> dict[str, np.ndarray]:
    """Inputs by name, of one row: ``ids`` (tokens,), cut where the sequence would be too long.

    Args:
        picture: which of the sample's.
    """
    (shape,) = (v.shape for v in exported.model.graph.inputs if v.name == PICTURES)
    assert shape is not None
    token, size = placeholder(source.config()), [*shape]
    behind = ids[ids != token]  # random ids may have it
    grid = exported.grid
    if grid is not None:
        size = [1, 3, *(side * grid.unit for side in sample_grid(exported.length))]
    pixels = normal_pictures(source, size, picture + 1, which)[picture:]
    if grid is not None:
        told = {"placeholder": token, "grid": asdict(grid)}
        return sized_feed(told, pixels[0], behind, exported.length)
    row = np.array([[token] * exported.picture_tokens + [*behind]], np.int64)[:, : exported.length]
    return {"input_ids": row, "attention_mask": np.ones_like(row), PICTURES: pixels}
