"""How large pictures are made, of models that take them in about their own form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lepton_compile.runtime.loader_grids import MOST_PIXELS
from lepton_compile.runtime.loader_tiles import MOST_EDGE

__all__ = ["BETWEEN", "EDGE", "FILL", "FORMS", "GROW", "SCALE", "SIZES", "AnySize", "any_size"]

BETWEEN, FILL, EDGE, GROW, SCALE = "", "fill", "edge", "grow", "scale"
"""Rules: no fewer and no more pixels (Qwen-VL), as many as there may be (Gemma 4), a longest edge
(Pixtral); and as the first, where a side of less than a token is grown to one before, by itself
(PaddleOCR-VL) or with the other (GLM, which counts pixels of all frames)."""
KEYS = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
"""Of the fewest and the most: as they are called by themselves, and under ``size``, whose words for
edges mean pixels here."""
SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""How many tokens Gemma 4 may make of a picture, at most."""
SIZES = {
    BETWEEN: ("size", "min_pixels", "max_pixels"),
    FILL: ("patch_size", "pooling_kernel_size", "max_soft_tokens"),
    EDGE: ("size",),
}
SIZES |= {GROW: SIZES[BETWEEN], SCALE: (*SIZES[BETWEEN], "temporal_patch_size")}
"""What each rule goes by, as it is called in files."""
FORMS = {
    BETWEEN: f"shortest_edge and longest_edge, or min_pixels and max_pixels, up to {MOST_PIXELS}",
    FILL: f"max_soft_tokens, one of {', '.join(map(str, SOFT_TOKENS))}",
    EDGE: f"size, whose longest_edge is a number from 1 to {MOST_EDGE}",
}
FORMS |= {GROW: FORMS[BETWEEN], SCALE: f"{FORMS[BETWEEN]}, of temporal_patch_size frames"}
"""What is read of each rule."""


@dataclass(frozen=True)
class AnySize:
    """How many pixels a picture is given that keeps about its form, in whole tokens.

    Attributes:
        least: pixels.
        most: pixels.
        fit: the rule by which it is made smaller or larger.
        edge: rows or columns of the longer side at most, of the rule that goes by it.
    """

    least: int
    most: int
    fit: str = BETWEEN
    edge: int = 0

    def entry(self) -> dict[str, Any]:
        """As the manifest has it: ``fit`` and ``edge`` where they say something."""
        found = asdict(self)
        return {name: value for name, value in found.items() if value or name in ("least", "most")}

    def within(self, most: int, unit: int) -> AnySize:
        """The same of ``most`` pixels at most, in tokens of ``unit`` rows and columns."""
        edge = self.edge
        if (-(-edge // unit) * unit) ** 2 > most:
            edge = math.isqrt(most) // unit * unit
        return replace(self, least=min(self.least, most), most=min(self.most, most), edge=edge)


def any_size(settings: Mapping[str, Any], fit: str, usual: tuple[int, int]) -> AnySize | None:
    """What the settings of an image processor ask for; None where they do in no form that is read.

    Args:
        usual: where settings do not say: the fewest and the most pixels; or rows and columns of a
            patch, and how many tokens there may be; or the longest edge, twice.
    """
    if fit == FILL:
        return _filled(settings, *usual)
    if fit == EDGE:
        return _of_edge(settings, usual[1])
    named = settings.get("size")
    if not isinstance(named, dict | None):
        return None
    given = dict(zip((key for _, key in KEYS), usual, strict=True)) if named is None else named
    found: list[Any] = [settings.get(alone) or given.get(key) for alone, key in KEYS]
    whole = all(type(number) is int for number in found)
    frames = settings.get("temporal_patch_size", 2) if fit == SCALE else 1
    if type(frames) is not int or frames < 1 or not whole or any(n % frames for n in found):
        return None
    found = [number // frames for number in found]
    fits = 0 < found[0] <= found[1] <= MOST_PIXELS
    return AnySize(found[0], found[1], fit) if fits else None


def _filled(settings: Mapping[str, Any], patch: int, tokens: int) -> AnySize | None:
    """By how many tokens there may be, each of so many patches."""
    asked = {"patch_size": patch, "pooling_kernel_size": 3, "max_soft_tokens": tokens}
    sizes = [settings.get(key, known) for key, known in asked.items()]
    if any(type(size) is not int for size in sizes) or sizes[2] not in SOFT_TOKENS:
        return None
    unit = (sizes[0] * sizes[1]) ** 2
    return AnySize(unit, sizes[2] * unit, FILL) if 0 < sizes[2] * unit <= MOST_PIXELS else None


def _of_edge(settings: Mapping[str, Any], usual: int) -> AnySize | None:
    """By the longer edge."""
    named = settings.get("size")
    given = {"longest_edge": usual} if named is None else named
    edge = given.get("longest_edge") if isinstance(given, dict) else None
    if type(edge) is not int or not 0 < edge <= MOST_EDGE:
        return None
    return AnySize(1, edge**2, EDGE, edge)
