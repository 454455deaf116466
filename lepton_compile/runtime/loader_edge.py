"""Pixtral's pictures: up to a longest edge, and marks between rows of their tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_grids import tokens_of
from lepton_compile.runtime.loader_guard import refuse

__all__ = ["bounded", "in_rows"]


def bounded(rows: int, columns: int, how: Mapping[str, Any], unit: int) -> list[int]:
    """Rows and columns, up to whole tokens of ``unit``."""
    by = max(1.0, max(rows / how["edge"], columns / how["edge"]))
    size = [-(-math.floor(side / by) // unit) * unit for side in (rows, columns)]
    refuse(not all(size), f"an image of {rows} x {columns} is too thin")
    return size


def in_rows(told: Mapping[str, Any], picture: np.ndarray) -> str:
    """What stands for a picture in a text."""
    rows, columns = tokens_of(picture, told["grid"])
    lines = (told["line"] or "").join([told["name"] * columns] * rows)
    return str(told["one"]).replace(told["name"], lines)
