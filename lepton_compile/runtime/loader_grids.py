"""Pictures of any size: how large one is made, and its patches."""

from __future__ import annotations

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
    "check_grids",
    "feeds",
    "one_alone",
    "patches",
    "sized",
    "tokens_of",
    "without_grids",
]

PLACES = "encoder_positions"
GRID = dict.fromkeys(("patch", "merge", "frames", "window", "axes"), int)
MOST_PIXELS = 1 << 26  # of one picture


def check_grids(manifest: dict[str, Any]) -> None:
    """Refuse patches of another form, and pictures of no size or of any."""
    size = {"least": int, "most": int, "fit?": str, "edge?": int}
    check_form(manifest, {"image?": size, "generation": {"pictures": {"grid": GRID}}}, "manifest")
    grid, how = manifest["generation"]["pictures"]["grid"], manifest["image"]
    fit = 0 < grid["patch"] <= 64 and 0 < grid["merge"] <= 8 and 0 < grid["frames"] <= 8
    fit = fit and 0 <= grid["window"] <= 32 and grid["axes"] in (1, 3)
    fit = fit and (not how or how["fit"] != "edge" or 0 < (how["edge"] or 0) <= 1 << 13)
    most = MOST_PIXELS // (grid["frames"] or 1) * 2
    fit = fit and (not how or 0 < how["least"] <= how["most"] <= min(most, MOST_PIXELS))
    parts = ["windows", grid["window"] ** 2] if grid["window"] else [1, "tokens"]
    parts = [*parts, grid["merge"] ** 2]
    wanted = {PIXELS: [*parts, 3 * grid["frames"] * grid["patch"] ** 2], PLACES: [*parts, 2]}
    wanted |= {"position_offsets": [3, "batch", "sequence"]} if grid["axes"] == 3 else {}
    shapes = {value["name"]: value["shape"] for value in manifest["inputs"]}
    fit = fit and all(shapes.get(name) == shape for name, shape in wanted.items())
    refuse(not fit, f"manifest.json is damaged: pictures cannot be cut into {grid}")


def sized(picture: np.ndarray, how: Mapping[str, Any], grid: Mapping[str, int]) -> np.ndarray:
    """A picture in whole tokens, about its own form, of as many pixels as the model takes."""
    unit, (rows, columns) = grid["patch"] * grid["merge"], picture.shape[:2]
    size, fit = list[int](), how.get("fit")
    if fit == "fill":
        from lepton_compile.runtime.loader_filling import filled

        size = filled(rows, columns, how, unit)
    if fit == "edge":
        from lepton_compile.runtime.loader_edge import bounded

        size = bounded(rows, columns, how, unit)
    if fit == "grow":
        from lepton_compile.runtime.loader_growing import grown

        rows, columns = grown(rows, columns, unit)
    if fit == "scale":
        from lepton_compile.runtime.loader_scaling import scaled

        rows, columns = scaled(rows, columns, unit)
    if fit in (None, "grow", "scale"):
        from lepton_compile.runtime.loader_between import between

        size = between(rows, columns, how, unit)
    refuse(not size, f"manifest.json is damaged: no images are made by {fit}")
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
    patch, merge = grid["patch"], grid["merge"]
    rows, columns = tokens_of(picture, grid)
    cut = picture.reshape(3, rows, merge, patch, columns, merge, patch)
    whole = cut.transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows, columns, merge**2, 3, 1, -1)
    whole = whole.repeat(grid["frames"], axis=4).reshape(rows, columns, merge**2, -1)
    inside = np.stack(np.divmod(np.arange(merge**2), merge), -1)
    places = merge * np.moveaxis(np.indices((rows, columns)), 0, -1)[:, :, None] + inside
    if side := grid["window"]:
        from lepton_compile.runtime.loader_windows import by_window

        return by_window(whole, side, 0), by_window(places, side, -1)
    return whole.reshape(1, -1, *whole.shape[2:]), places.reshape(1, -1, *places.shape[2:])


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
    found = {"input_ids": np.array([[*prompt]], np.int64)}
    if pixels:
        found[PIXELS], found[PLACES] = patches(pixels[0], told["grid"])
    if told["grid"]["axes"] == 3:
        from lepton_compile.runtime.loader_axes import offsets

        found["position_offsets"] = offsets(prompt, pixels, told)[:, None, :-1]
    return found


def without_grids(model: Any, given: dict[str, np.ndarray]) -> None:
    """Add that there is no picture, where none is given."""
    none = [0 if isinstance(size, str) else size for size in model.inputs[PLACES]["shape"]]
    given.setdefault(PLACES, np.zeros(none, np.int64))
    given.setdefault(PIXELS, np.zeros((*none[:-1], model.inputs[PIXELS]["shape"][-1]), np.float32))
    if "position_offsets" in model.inputs:
        from lepton_compile.runtime.loader_axes import without_offsets

        without_offsets(given, given[PIXELS].size > 0)
