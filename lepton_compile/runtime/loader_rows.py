"""Rows of token ids as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["padded"]


def padded(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """input_ids and attention_mask of rows of any length, padded on the right."""
    width = max(map(len, rows))
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return {"input_ids": [[*r, *[0] * (width - len(r))] for r in rows], "attention_mask": mask}
