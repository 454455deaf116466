"""Pictures in tiles, of models that take one in several pieces of one size, and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, refuse
from lepton_compile.runtime.loader_pixels import resized

__all__ = ["EDGE", "MOST_EDGE", "MOST_PIXELS", "MOST_TILES", "RATIO", "check_tiles", "tiled"]

EDGE, RATIO = "longest-edge", "closest-ratio"
TILE = {"kind": str, "most": int, "edge?": int, "least?": int}
TILES = {"image?": {"size": [int], "tiles?": TILE}}
MOST_EDGE, MOST_TILES, MOST_PIXELS = 4096, 256, 1 << 25  # of one picture: memory is not endless


def check_tiles(manifest: dict[str, Any]) -> None:
    """Refuse tiles of another form, and more or larger ones than a picture can have."""
    check_form(manifest, TILES, "manifest")
    how = manifest["image"] or {}
    if tiles := how.get("tiles"):
        size, kind, most = how["size"], tiles["kind"], tiles["most"]
        edge, least = tiles["edge"] or 0, tiles["least"] or 0
        fit = len(size) == 2 and 0 < most <= MOST_TILES
        fit = fit and 0 < most * size[0] * size[1] <= MOST_PIXELS
        if kind == EDGE:
            along = -(-(edge + edge % 2) // min(size)) if fit else 0
            fit = fit and 0 < edge <= MOST_EDGE and (most == 1 or along**2 <= most)
        else:
            fit = fit and kind == RATIO and 0 < least <= most
        why = f"manifest.json is damaged: manifest.image.tiles cannot be {tiles} of {size}"
        refuse(not fit, why)


def tiled(picture: np.ndarray, how: Mapping[str, Any]) -> tuple[list[np.ndarray], int, int]:
    """Tiles of a picture, row after row, and rows and columns of the grid.

    Behind several there is the whole as one more; of one alone they are 0, 0.
    """
    tiles, (high, wide) = how["tiles"], how["size"]
    if tiles["kind"] == EDGE:
        picture = _sized(picture, _by_edge(picture, tiles["edge"], 2), how)
        longer = -(-max(picture.shape[:2]) // high) * high
        rows, columns = (n // high for n in _by_edge(picture, longer, high))
        if tiles["most"] == 1:
            rows = columns = 1
    else:
        rows, columns = _by_ratio(picture, how)
    even = _sized(picture, (rows * high, columns * wide), how)
    if rows == columns == 1:
        return [even], 0, 0
    whole = _sized(even if tiles["kind"] == EDGE else picture, (high, wide), how)
    corners = [(high * row, wide * column) for row in range(rows) for column in range(columns)]
    found = [even[top : top + high, left : left + wide] for top, left in corners]
    return [*found, whole], rows, columns


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


def _by_ratio(picture: np.ndarray, how: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of the grid whose ratio is closest to the picture's.

    Of several the last that has less than twice its area, else the first: the smallest.
    """
    rows, columns = picture.shape[:2]
    least, most, (high, wide) = how["tiles"]["least"], how["tiles"]["most"], how["size"]
    every = ((x * y, x, y) for x in range(1, most + 1) for y in range(1, most // x + 1))
    found, best = (1, 1), float("inf")
    for many, x, y in sorted(grid for grid in every if grid[0] >= least):
        off = abs(columns / rows - x / y)
        if off < best or (off == best and 2 * rows * columns > high * wide * many):
            found, best = (y, x), off
    return found
