"""Models that see and write: samples for them, and room for a picture."""

from __future__ import annotations

import numpy as np

from lepton_compile.api.pictures import normal_pictures
from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.image_text import IMAGE_TEXT, PICTURES, placeholder
from lepton_compile.export.vision_part import preprocessing
from lepton_compile.recipe import Recipe
from lepton_compile.report.pictures import picture_words

__all__ = ["check_room", "pictured_feed", "room_told"]

WORDS = 2
"""What is asked, and what is answered, at the least."""


def check_room(recipe: Recipe, source: Source, exported: ExportedModel) -> None:
    """Refuse sequences in which a picture leaves no room for words.

    Raises:
        RecipeError: of any form it has too many tiles, or too many tokens.
    """
    if exported.task != IMAGE_TEXT:
        return
    need = _fewest_tiles(source) * exported.picture_tokens + WORDS
    if exported.length < need:
        raise RecipeError(
            "no picture has room in the longest sequence, beside a question and an answer",
            where=recipe.place("shapes.sequence"),
            found=f"{exported.length} tokens",
            available=[f"an end from {need} on, of which {need - WORDS} stand for a picture"],
        )


def _fewest_tiles(source: Source) -> int:
    """Of a picture whose form makes the fewest; the whole is one more where there are several."""
    made = preprocessing(source)
    if made is None or made.tiles is None or made.tiles.most == 1:
        return 1
    least = made.tiles.least or -(-made.tiles.edge // made.size[0])
    return least + (least > 1)


def room_told(source: Source, exported: ExportedModel) -> str:
    """How many tokens a picture takes, in words; nothing of models that do not see and write."""
    if exported.task != IMAGE_TEXT:
        return ""
    made = preprocessing(source)
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
    token = placeholder(source.config())
    before = [token] * exported.picture_tokens
    behind = ids[ids != token]  # random ids may have it
    row = np.array([[*before, *behind]], np.int64)[:, : exported.length]
    pixels = normal_pictures(source, [*shape], picture + 1, which)[picture:]
    return {"input_ids": row, "attention_mask": np.ones_like(row), PICTURES: pixels}
