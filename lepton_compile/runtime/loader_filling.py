"""How large a picture is made that has as many pixels as there may be (Gemma 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["filled"]


def filled(rows: int, columns: int, how: Mapping[str, Any], unit: int) -> list[int]:
    """Rows and columns, in whole tokens of ``unit``: as many of these as there may be, at most."""
    by = math.sqrt(how["most"] / (rows * columns))
    high, wide = (math.floor(by * side / unit) for side in (rows, columns))
    longest = how["most"] // unit**2
    high, wide = high or 1, wide if high else min(columns // rows, longest)
    high, wide = high if wide else min(rows // columns, longest), wide or 1
    return [high * unit, wide * unit]
