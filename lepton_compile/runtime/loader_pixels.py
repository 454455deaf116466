"""Pictures as arrays of bytes, and these as a model takes them: resized, cut, normalized."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse

__all__ = ["PICTURE", "bytes_of", "listed", "normalized", "resized"]

SIZES = {"size": [int], "resize": [int], "resample": str, "crop": bool}
PICTURE = {"image?": {**SIZES, "scale": float, "mean": [float], "std": [float]}}


def listed(images: Sequence[Any], least: int = 1) -> list[Any]:
    """A list of images, of which there are at least so many."""
    alone = isinstance(images, str | os.PathLike) or getattr(images, "ndim", 4) != 4
    refuse(alone or hasattr(images, "getbands"), "give a list of images, not one")
    with failing(f"give a list of images, not {images!r:.60}"):
        given = [*images]
    refuse(len(given) < least, "there are no images")
    return given


def _pillow(why: str) -> Any:
    with failing(f"{why} needs Pillow: pip install pillow"):
        from PIL import Image
    return Image


def bytes_of(given: Any) -> np.ndarray:
    """A picture as bytes (rows, columns, 3); what shows through is put on white."""
    if isinstance(given, str | os.PathLike):
        image, most = _pillow("an image file"), 0
        with failing(f"{os.fspath(given)} is no image"), image.open(given) as file:
            most, size = image.MAX_IMAGE_PIXELS or 0, file.width * file.height
            refuse(0 < most < size, f"{size} pixels are more than Pillow's limit of {most}")
            from PIL import ImageOps

            return bytes_of(ImageOps.exif_transpose(file))
    if hasattr(given, "getbands"):  # of Pillow
        with failing("the image cannot be read"):
            top = given.getextrema()[1] if given.mode[0] in "IF" else 255  # others are of bytes
            refuse(top > 255 or 0 < top <= 1, f"numbers up to {top}: scale them to 0 to 255")
            if "A" in given.getbands() or given.info.get("transparency") is not None:
                over = given.convert("RGBA")
                white = _pillow("this").new("RGBA", over.size, (255, 255, 255, 255))
                given = _pillow("this").alpha_composite(white, over)
            return np.asarray(given.convert("RGB"))
    with failing("an image is a uint8 array, an image of Pillow's, or a path"):
        array = np.asarray(given)
    what = f"{array.dtype} {array.shape}" if array.ndim else type(given).__name__
    bad = array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size
    refuse(bad, f"an image is uint8 (rows, columns, 3), RGB, a path or of Pillow, not {what}")
    return array


def resized(picture: np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    """A picture of the size that the model takes."""
    height, width = picture.shape[:2]
    wanted = tuple(how["resize"]) or (height, width)
    if len(wanted) == 1:  # of the shorter edge, which the other follows
        edge, short = wanted[0], min(height, width)
        long = int(edge * max(height, width) / short)
        wanted = (long, edge) if width <= height else (edge, long)
    why = f"an image of {height} x {width}, which has to be {wanted[0]} x {wanted[1]},"
    refuse(wanted[0] * wanted[1] > 1 << 26, f"{why} is too thin")  # few bytes, gigabytes then
    if wanted != (height, width):
        image = _pillow(why)
        by = getattr(image.Resampling, how["resample"].upper())
        picture = np.asarray(image.fromarray(picture).resize(wanted[::-1], by))
    (height, width), (rows, columns), crop = wanted, how["size"], how["crop"]
    fits = height >= rows and width >= columns if crop else (height, width) == (rows, columns)
    asked = f"{'at least ' * crop}{rows} x {columns}"
    refuse(not fits, f"an image has {asked}, not {height} x {width}")
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]


def normalized(picture: np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    """(3, rows, columns) float32."""
    scaled = picture.astype(np.float32) * np.float32(how["scale"])
    mean, std = np.array(how["mean"], np.float32), np.array(how["std"], np.float32)
    return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1))
