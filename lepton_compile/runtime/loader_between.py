"""How large a picture is made, between the fewest and the most pixels (Qwen-VL)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lepton_compile.runtime.loader_guard import refuse

__all__ = ["between"]

THINNEST = 200  # as much longer than wide at most


def between(rows: int, columns: int, how: Mapping[str, Any], unit: int) -> list[int]:
    """Rows and columns, in whole tokens of ``unit``."""
    why = f"an image of {rows} x {columns} is too thin"
    refuse(max(rows, columns) > THINNEST * min(rows, columns), why)
    size = [round(side / unit) * unit for side in (rows, columns)]
    if size[0] * size[1] > how["most"]:
        by = math.sqrt(rows * columns / how["most"])
        size = [max(unit, math.floor(side / by / unit) * unit) for side in (rows, columns)]
    elif size[0] * size[1] < how["least"]:
        by = math.sqrt(how["least"] / (rows * columns))
        size = [math.ceil(side * by / unit) * unit for side in (rows, columns)]
    return size
