"""How many tokens a picture takes, of vision-language models, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["most_tokens", "picture_words", "pictures_in", "sized_words"]


def pictures_in(manifest: Mapping[str, Any]) -> str:
    """As an artifact's manifest has it; nothing where the model takes no pictures among tokens."""
    told = (manifest.get("generation") or {}).get("pictures")
    if not told:
        return ""
    made, longest = manifest.get("image") or {}, manifest["ranges"]["sequence"][1]
    if grid := told.get("grid"):
        unit = grid["patch"] * grid["merge"]
        return sized_words(most_tokens(made, unit) if made else 0, longest)
    return picture_words(told["tokens"], (made.get("tiles") or {}).get("most", 1), longest)


def most_tokens(made: Mapping[str, Any], unit: int) -> int:
    """Of a picture of any size, with what stands behind its rows where there is a longest edge.

    Args:
        made: how large pictures are made, ``image`` of the manifest.
        unit: rows and columns of a token.
    """
    if edge := made.get("edge"):
        side = -(-edge // unit)
        return int(side * (side + 1))
    return int(made["most"] // unit**2)


def sized_words(most: int, longest: int) -> str:
    """Of pictures of any size, ``most`` tokens each (0 where nothing says), of ``longest``."""
    return f"by its size, up to {most:,} of {longest:,} tokens" if most else "by its size"


def picture_words(tokens: int, most: int, longest: int) -> str:
    """Of what there may be, what a picture takes.

    Args:
        tokens: of a tile, or of a picture that is one.
        most: tiles that a picture is cut into, at most; where it is, the whole is one more.
        longest: how many tokens there may be, question and answer included.
    """
    if most <= 1:
        return f"{tokens:,} of {longest:,} tokens"
    tiles = most + 1
    words = f"up to {tiles} tiles of {tokens:,} tokens: {tiles * tokens:,} of {longest:,}"
    more = "the largest do not fit" if tiles * tokens >= longest else "and marks between them"
    return f"{words}, {more}"
