"""Pictures as transformers' models take them, whose processors make them in several forms."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.export.image_text_kinds import PADDLEOCR, has_pixtral
from lepton_compile.export.patch_grid import patch_grid
from lepton_compile.runtime.loader_grids import patches

__all__ = ["with_pictures"]

Array = npt.NDArray[Any]
COLOURS = 3


def with_pictures(
    module: Any, ids: Any, pictures: Array | Sequence[Sequence[Array]]
) -> dict[str, Any]:
    """What a model of transformers takes of pictures, of each text those of its own, in order.

    Those whose pictures see themselves, or have positions of their own, are told which of the
    ``ids`` (texts, tokens) are theirs.

    Args:
        pictures: each (channels, rows, columns); of one size, where a model takes them so.
    """
    import torch

    takes, token = inspect.signature(module.forward).parameters, module.config.image_token_id
    every = [one for each in pictures for one in each]
    cut = patch_grid(module.config)
    grid = {**asdict(cut), "window": 0} if cut is not None else {}
    if module.config.model_type in PADDLEOCR:
        given = _in_raster(grid["patch"], every)
    elif "image_grid_thw" in takes:
        given = _in_patches(grid, every)
    elif "image_position_ids" in takes:
        given = _by_pixel(grid, every)
    elif has_pixtral(module.config):
        given = _padded(every)
    elif "pixel_attention_mask" in takes:  # which are cut
        given = {"pixel_values": np.asarray(pictures)}
    else:
        given = {"pixel_values": np.stack(every)}
    found = {name: torch.from_numpy(array) for name, array in given.items()}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in takes:
            found[name] = (ids == token).to(torch.int64)
    return found


def _in_patches(grid: dict[str, int], pictures: list[Array]) -> dict[str, Array]:
    """Qwen-VL's: all patches in a row, and of each picture how many frames, rows and columns."""
    cut = [patches(one, grid)[0] for one in pictures]
    sizes = [(1, *(side // grid["patch"] for side in one.shape[1:])) for one in pictures]
    return {
        "pixel_values": np.concatenate([one.reshape(-1, one.shape[-1]) for one in cut]),
        "image_grid_thw": np.array(sizes),
    }


def _in_raster(side: int, pictures: list[Array]) -> dict[str, Array]:
    """PaddleOCR-VL's: the same, row by row, and each patch as a picture."""
    rows, sizes = list[Array](), list[tuple[int, int, int]]()
    for one in pictures:
        high, wide = (edge // side for edge in one.shape[1:])
        cut = one.reshape(COLOURS, high, side, wide, side).transpose(1, 3, 0, 2, 4)
        rows.append(cut.reshape(-1, COLOURS, side, side))
        sizes.append((1, high, wide))
    return {"pixel_values": np.concatenate(rows), "image_grid_thw": np.array(sizes)}


def _by_pixel(grid: dict[str, int], pictures: list[Array]) -> dict[str, Array]:
    """Gemma 4's: patches of each picture, the colours of a pixel side by side, and their columns
    and rows, filled up with -1 to the largest."""
    cut = [patches(one, grid) for one in pictures]
    most = max(pixels.shape[1] for pixels, _ in cut) * grid["merge"] ** 2
    rows, places = list[Array](), list[Array]()
    for pixels, at in cut:
        flat = pixels.reshape(-1, COLOURS, grid["patch"] ** 2).swapaxes(1, 2)
        more = ((0, most - len(flat)), (0, 0))
        rows.append(np.pad(flat.reshape(len(flat), -1), more))
        places.append(np.pad(at.reshape(-1, 2)[:, ::-1], more, constant_values=-1))
    return {"pixel_values": np.stack(rows), "image_position_ids": np.stack(places)}


def _padded(pictures: list[Array]) -> dict[str, Array]:
    """Pixtral's: all in one array, as large as the largest, and how large each is."""
    sizes = np.array([one.shape[1:] for one in pictures])
    high, wide = sizes.max(0)
    filled = [
        np.pad(one, ((0, 0), (0, high - one.shape[1]), (0, wide - one.shape[2])))
        for one in pictures
    ]
    return {"pixel_values": np.stack(filled), "image_sizes": sizes}
