"""Sides of a picture of less than a token are made one (PaddleOCR-VL)."""

from __future__ import annotations

__all__ = ["grown"]


def grown(rows: int, columns: int, unit: int) -> tuple[int, int]:
    """Rows and columns of about the same form, of ``unit`` at least."""
    if rows < unit:
        rows, columns = unit, round(columns * unit / rows)
    if columns < unit:
        rows, columns = round(rows * unit / columns), unit
    return rows, columns
