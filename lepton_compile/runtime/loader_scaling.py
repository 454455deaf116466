"""A picture with a side of less than a token is made larger, in its form (GLM)."""

from __future__ import annotations

__all__ = ["scaled"]


def scaled(rows: int, columns: int, unit: int) -> tuple[int, int]:
    """Rows and columns, of about ``unit`` at least."""
    by = max(1.0, unit / rows, unit / columns)
    return int(rows * by), int(columns * by)
