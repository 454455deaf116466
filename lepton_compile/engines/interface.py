"""What an engine takes and gives, in the words of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

__all__ = ["signature"]


def signature(values: Sequence[ir.Value]) -> list[dict[str, Any]]:
    """Name, numpy dtype and shape of each value; a dimension is a number or a name."""
    return [
        {
            "name": value.name or "",
            "dtype": value.dtype.numpy().name if value.dtype is not None else None,
            "shape": [
                size if isinstance(size, int) else str(size.value) for size in value.shape or ()
            ],
        }
        for value in values
    ]
