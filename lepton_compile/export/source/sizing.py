"""How many pixels a picture is given, of models that take it in about its own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_compile.runtime.loader_grids import MOST_PIXELS

__all__ = ["FORMS", "asked_pixels"]

KEYS = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
"""Of the fewest and the most: as they are called by themselves, and under ``size``, whose words for
edges mean pixels here."""
FORMS = f"shortest_edge and longest_edge, or min_pixels and max_pixels, up to {MOST_PIXELS}"


def asked_pixels(settings: Mapping[str, Any], usual: tuple[int, int]) -> tuple[int, int] | None:
    """The fewest and the most that settings ask for; None where they do in no form that is read."""
    named = settings.get("size")
    if not isinstance(named, dict | None):
        return None
    given = dict(zip((key for _, key in KEYS), usual, strict=True)) if named is None else named
    found: list[Any] = [settings.get(alone) or given.get(key) for alone, key in KEYS]
    whole = all(type(number) is int for number in found)
    return (found[0], found[1]) if whole and 0 < found[0] <= found[1] <= MOST_PIXELS else None
