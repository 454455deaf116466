"""Pictures of any size: how large one is made, its patches, and its tokens' places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, failing, refuse
from lepton_compile.runtime.loader_opened import Opened
from lepton_compile.runtime.loader_pictured import pictured
from lepton_compile.runtime.loader_pixels import listed, resized
from lepton_compile.runtime.loader_seer import PIXELS, Seer

__all__ = [
    "MOST_PIXELS",
    "GridSeer",
    "Prepares",
    "ahead",
    "check_grids",
    "feeds",
    "offsets",
    "one_alone",
    "patches",
    "place",
    "sized",
    "tokens_of",
    "without_grids",
]

PLACES, OFFSETS = "encoder_positions", "position_offsets"
GRID = {"patch": int, "merge": int, "frames": int, "window": int}
MOST_PIXELS = 1 << 26  # of one picture
THINNEST = 200  # as much longer than wide at most


def check_grids(manifest: dict[str, Any]) -> None:
    """Refuse patches of another form, and pictures of no size or of any."""
    form = {"image?": {"least": int, "most": int}, "generation": {"pictures": {"grid": GRID}}}
    check_form(manifest, form, "manifest")
    grid, how = manifest["generation"]["pictures"]["grid"], manifest["image"]
    fit = 0 < grid["patch"] <= 64 and 0 < grid["merge"] <= 8 and 0 < grid["frames"] <= 8
    fit = fit and 0 <= grid["window"] <= 32
    most = MOST_PIXELS // (grid["frames"] or 1) * 2
    fit = fit and (not how or 0 < how["least"] <= how["most"] <= min(most, MOST_PIXELS))
    parts = ["windows", grid["window"] ** 2] if grid["window"] else [1, "tokens"]
    parts = [*parts, grid["merge"] ** 2]
    wanted = {PIXELS: [*parts, 3 * grid["frames"] * grid["patch"] ** 2], PLACES: [*parts, 2]}
    wanted[OFFSETS] = [3, "batch", "sequence"]
    shapes = {value["name"]: value["shape"] for value in manifest["inputs"]}
    fit = fit and all(shapes.get(name) == shape for name, shape in wanted.items())
    refuse(not fit, f"manifest.json is damaged: pictures cannot be cut into {grid}")


def sized(picture: np.ndarray, how: Mapping[str, Any], grid: Mapping[str, int]) -> np.ndarray:
    """A picture in whole tokens, about its own form, of as many pixels as the model takes."""
    unit, (rows, columns) = grid["patch"] * grid["merge"], picture.shape[:2]
    why = f"an image of {rows} x {columns} is too thin"
    refuse(max(rows, columns) > THINNEST * min(rows, columns), why)
    size = [round(side / unit) * unit for side in (rows, columns)]
    if size[0] * size[1] > how["most"]:
        by = math.sqrt(rows * columns / how["most"])
        size = [max(unit, math.floor(side / by / unit) * unit) for side in (rows, columns)]
    elif size[0] * size[1] < how["least"]:
        by = math.sqrt(how["least"] / (rows * columns))
        size = [math.ceil(side * by / unit) * unit for side in (rows, columns)]
    return resized(picture, {**how, "resize": size, "size": size, "crop": False})


def tokens_of(picture: np.ndarray, grid: Mapping[str, int]) -> tuple[int, int]:
    """Rows and columns of tokens that a picture (3, rows, columns) makes."""
    unit = grid["patch"] * grid["merge"]
    return picture.shape[1] // unit, picture.shape[2] // unit


def patches(picture: np.ndarray, grid: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture (3, rows, columns) as patches (windows, tokens, patches, numbers), and rows and
    columns of these (.., 2).

    Of windows all tokens are there: those beyond the edge are zero, their rows and columns -1.
    """
    patch, merge, side = grid["patch"], grid["merge"], grid["window"]
    rows, columns = tokens_of(picture, grid)
    cut = picture.reshape(3, rows, merge, patch, columns, merge, patch)
    whole = cut.transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows, columns, merge**2, 3, 1, -1)
    whole = whole.repeat(grid["frames"], axis=4).reshape(rows, columns, merge**2, -1)
    inside = np.stack(np.divmod(np.arange(merge**2), merge), -1)
    places = merge * np.moveaxis(np.indices((rows, columns)), 0, -1)[:, :, None] + inside
    if side:
        return _by_window(whole, side, 0), _by_window(places, side, -1)
    return whole.reshape(1, -1, *whole.shape[2:]), places.reshape(1, -1, *places.shape[2:])


def _by_window(array: np.ndarray, side: int, fill: int) -> np.ndarray:
    """(rows, columns, ..) as (windows, tokens, ..), each of ``side`` x ``side``."""
    more = [(0, -size % side) for size in array.shape[:2]] + [(0, 0)] * (array.ndim - 2)
    full = np.pad(array, more, constant_values=fill)
    high, wide = (size // side for size in full.shape[:2])
    apart = full.reshape(high, side, wide, side, *array.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(apart).reshape(high * wide, side**2, *array.shape[2:])


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


class Prepares(Opened):
    """A model whose pictures are of any size."""

    def prepared(self, prompt: Any, images: Sequence[Any], chat: Any = False) -> dict[str, Any]:
        """All that run() takes of one prompt and of an image in it."""
        told = self.manifest["generation"]["pictures"]
        return feeds(told, pictured(self, prompt, False, images, chat)[0])


class GridSeer(Seer):
    """A Seer of pictures of any size, one at a time."""

    def see(self, pixels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Rows (tokens, width) of pictures (3, rows, columns), each on its own."""
        return np.concatenate([self._rows(*patches(one, self.told["grid"])) for one in pixels])

    def _rows(self, pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Those of one picture's patches, row by row."""
        with failing("the engine failed on what it sees"):
            (found,) = self.encoder.run([self.name], {PIXELS: pixels, PLACES: places})
        row, column = places[:, :, 0].reshape(-1, 2).T
        refuse(len(found) != len(row), "manifest.json is damaged: tokens have other patches")
        return np.asarray(found[np.lexsort((column, row))[(row < 0).sum() :]])

    def run(self, names: list[str], given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of the decoder by all that both are given."""
        own = {name: array for name, array in given.items() if name not in (PIXELS, PLACES)}
        pixels, places = given[PIXELS], given[PLACES]
        rows, found = int((places[:, :, 0, 0] >= 0).sum()), given["input_ids"]
        here = int((found == self.told["placeholder"]).sum())
        refuse(here != rows, f"a picture takes {rows} placeholders, and the ids have {here}")
        seen = self._rows(pixels, places) if rows else self.nothing
        made: list[np.ndarray] = self.decoder.run(names, {**own, self.name: seen})
        return made


def one_alone(model: Any, images: Sequence[Any]) -> np.ndarray:
    """Patches of one picture."""
    given = listed(images)
    refuse(len(given) > 1, f"run() takes one image, not {len(given)}: generate() takes all")
    return patches(model.tiles(given[0])[0][0], model.manifest["generation"]["pictures"]["grid"])[0]


def feeds(told: Mapping[str, Any], prompt: Any) -> dict[str, np.ndarray]:
    """Inputs by name of a prompt with one picture in it, or none."""
    pixels = prompt.pixels
    refuse(len(pixels) > 1, f"run() takes one image, not {len(pixels)}: generate() takes all")
    apart = offsets(prompt, pixels, told)[:, None, :-1]
    found = {"input_ids": np.array([[*prompt]], np.int64), OFFSETS: np.ascontiguousarray(apart)}
    if pixels:
        found[PIXELS], found[PLACES] = patches(pixels[0], told["grid"])
    return found


def without_grids(model: Any, given: dict[str, np.ndarray]) -> None:
    """Add that there is no picture, where none is given."""
    none = [0 if isinstance(size, str) else size for size in model.inputs[PLACES]["shape"]]
    given.setdefault(PLACES, np.zeros(none, np.int64))
    given.setdefault(PIXELS, np.zeros((*none[:-1], model.inputs[PIXELS]["shape"][-1]), np.float32))
    late = any(name.startswith("past") for name in given) or given[PIXELS].size
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
