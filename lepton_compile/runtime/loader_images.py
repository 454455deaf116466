"""What models make of pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_opened import Opened
from lepton_compile.runtime.loader_pixels import bytes_of, listed, normalized, resized

__all__ = ["Sees"]


class Sees(Opened):
    """A model whose input are pictures.

    A picture is an array of bytes (rows, columns, 3), an image of Pillow's, or the path of a file.
    Pillow is needed for files, and where pictures have to be resized.
    """

    def pixels(self, images: Sequence[Any]) -> np.ndarray:
        """``pixel_values`` (pictures, 3, rows, columns) float32 of pictures."""
        how = self.manifest["image"]
        refuse(not how, "the model came without preprocessor_config.json: give run() pixel_values")
        given = [bytes_of(one) for one in listed(images)]
        with failing("these pictures do not become what the model takes"):
            return np.stack([normalized(resized(one, how), how) for one in given])

    def seen(self, images: Sequence[Any], name: str) -> np.ndarray:
        """Output ``name`` of each picture."""
        refuse(name not in self.outputs, f"there is no {name}, but {[*self.outputs]}")
        (least, most), found, given = self.manifest["ranges"]["batch"], [], listed(images)
        for at in range(0, len(given), together := max(least, min(32, most), 1)):
            pixels = self.pixels(given[at : at + together])
            more = np.repeat(pixels[-1:], max(0, least - len(pixels)), axis=0)
            fed = {"pixel_values": np.concatenate([pixels, more])}
            found.append(self.run(fed, [name])[name][: len(pixels)])
        return np.concatenate(found)
