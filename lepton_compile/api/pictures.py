"""Sample pictures for a captured vision model, of its size and preprocessed as its files say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.vision_part import IMAGE_TASKS, preprocessing
from lepton_compile.numerics.sample_images import normalized, pictures

__all__ = ["PIXELS", "normal_pictures", "picture_shape", "pixels_for", "sees"]

PIXELS = "pixel_values"


def sees(exported: ExportedModel) -> bool:
    """Whether pictures go in, and nothing else."""
    return exported.task in IMAGE_TASKS and exported.how != "imported"


def picture_shape(exported: ExportedModel) -> tuple[int, int, int]:
    """Channels, rows and columns of what the graph takes."""
    (value,) = (v for v in exported.model.graph.inputs if v.name == PIXELS)
    assert value.shape is not None
    channels, height, width = (int(size) for size in value.shape[1:])  # type: ignore[arg-type]
    return channels, height, width


def pixels_for(
    source: Source, exported: ExportedModel, count: int, *, which: str = "sample"
) -> np.ndarray:
    """``count`` of them, (count, channels, rows, columns)."""
    return normal_pictures(source, (count, *picture_shape(exported)), count, which)


def normal_pictures(
    source: Source, shape: Sequence[Any], count: int, which: str = "sample"
) -> np.ndarray:
    """``count`` of them for an input of that ``shape``: (pictures, channels, rows, columns)."""
    channels, height, width = (int(size) for size in shape[1:])
    made = preprocessing(source)
    seen = pictures(count, height, width, which=which)
    return normalized(seen, made.entry() if made is not None else None, channels)
