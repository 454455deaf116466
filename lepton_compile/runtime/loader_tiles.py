"""Pictures in tiles, of models that take one in several pieces of one size, and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, refuse
from lepton_compile.runtime.loader_images import resized

__all__ = ["EDGE", "MOST_EDGE", "MOST_PIXELS", "MOST_TILES", "check_tiles", "tiled"]

EDGE = "longest-edge"
TILES = {"image?": {"size": [int], "tiles?": {"kind": str, "edge": int, "most": int}}}
MOST_EDGE, MOST_TILES, MOST_PIXELS = 4096, 256, 1 << 25  # of one picture: memory is not endless


def check_tiles(manifest: dict[str, Any]) -> None:
    """Refuse tiles of another form, and more or larger ones than a picture can have."""
    check_form(manifest, TILES, "manifest")
    how = manifest["image"] or {}
    if tiles := how.get("tiles"):
        size, edge, most = how["size"], tiles["edge"], tiles["most"]
        bad = tiles["kind"] != EDGE or len(size) != 2 or not 0 < edge <= MOST_EDGE
        bad = bad or not (0 < most <= MOST_TILES and 0 < most * size[0] * size[1] <= MOST_PIXELS)
        bad = bad or 1 < most < (-(-(edge + edge % 2) // min(size))) ** 2
        refuse(bad, f"manifest.json is damaged: manifest.image.tiles cannot be {tiles} of {size}")


def tiled(picture: np.ndarray, how: Mapping[str, Any]) -> tuple[list[np.ndarray], int, int]:
    """Tiles of a picture, row after row, and rows and columns of the grid.

    Behind several there is the whole as one more; of one alone they are 0, 0.
    """
    tiles, (high, wide) = how["tiles"], how["size"]
    picture = _sized(picture, _by_edge(picture, tiles["edge"], 2), how)
    longer = -(-max(picture.shape[:2]) // high) * high
    rows, columns = (n // high for n in _by_edge(picture, longer, high))
    if tiles["most"] == 1:
        rows = columns = 1
    picture = _sized(picture, (rows * high, columns * wide), how)
    if rows == columns == 1:
        return [picture], 0, 0
    corners = [(high * row, wide * column) for row in range(rows) for column in range(columns)]
    found = [picture[top : top + high, left : left + wide] for top, left in corners]
    return [*found, _sized(picture, (high, wide), how)], rows, columns


def _sized(picture: np.ndarray, size: tuple[int, int], how: Mapping[str, Any]) -> np.ndarray:
    return resized(picture, {**how, "resize": size, "size": size})


def _by_edge(picture: np.ndarray, edge: int, whole: int) -> tuple[int, int]:
    """Rows and columns, the longer of ``edge`` and the other up to the next of ``whole``.

    What is rounded how is as the models saw it: the ratio comes first.
    """
    rows, columns = picture.shape[:2]
    ratio = columns / rows
    other = int(edge / ratio if columns >= rows else edge * ratio)
    other = max(1, -(-other // whole) * whole)
    return (other, edge) if columns >= rows else (edge, other)
