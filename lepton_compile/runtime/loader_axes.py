"""Positions of three axes: tokens of pictures have rows and columns among those of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_grids import tokens_of
from lepton_compile.runtime.loader_guard import refuse

__all__ = ["OFFSETS", "ahead", "offsets", "place", "without_offsets"]

OFFSETS = "position_offsets"


def offsets(ids: Sequence[int], pictures: Any, told: Mapping[str, Any]) -> np.ndarray:
    """(3, tokens + 1): how far positions are from the places of tokens, and at last of all that
    come behind. Axes are time, row and column; behind a picture the text goes on from the larger
    of its sides."""
    here = np.flatnonzero(np.equal(ids, told["placeholder"]))
    found, at, behind = np.zeros((3, len(ids) + 1), np.int64), 0, 0
    for picture in pictures:
        rows, columns = tokens_of(picture, told["grid"])
        place = np.arange(rows * columns)
        start, at = int(here[at]), at + len(place)
        apart = here[at - 1] - start >= len(place)
        refuse(apart, "tokens stand among those of one picture, which stand one behind another")
        seen = np.stack([0 * place, *np.divmod(place, columns)])
        found[:, start : start + len(place)] = behind + seen - place
        behind += max(rows, columns) - len(place)
        found[:, start + len(place) :] = behind
    return found


def without_offsets(given: dict[str, np.ndarray], sees: bool) -> None:
    """Add those of a text, where none are given; of what comes behind a picture they have to be."""
    late = sees or any(name.startswith("past") for name in given)
    refuse(late and OFFSETS not in given, f"give {OFFSETS}, too: prepared() makes them")
    if (ids := given.get("input_ids")) is not None:
        given.setdefault(OFFSETS, np.zeros((3, *ids.shape), np.int64))


def place(cache: Any, at: int, prompts: Sequence[Any], held: int) -> None:
    """Note the offsets of prompts, the first of which stands in place ``at`` of a cache, beyond the
    tokens that are ``held``; and of what will come behind them."""
    each = [offsets(prompt, prompt.pixels, cache.session.told) for prompt in prompts]
    cache.ahead = np.stack(each, 1)[:, :, held:-1]
    behind = cache.__dict__.setdefault("behind", {})
    behind |= {at + number: one[:, -1:] for number, one in enumerate(each)}


def ahead(cache: Any, rows: int) -> np.ndarray:
    """Offsets (3, rows, tokens) of what a cache reads next."""
    noted, cache.ahead = cache.ahead, None
    if noted is None:
        noted = np.stack([cache.behind[row] for row in range(rows)], 1)
    return np.ascontiguousarray(noted)
