"""Values for what an engine takes besides a text: graphs that came as ONNX have their own inputs.

A process that loads the artifact alone runs this file, so that it imports numpy and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["given_to"]

# What a loader makes up itself.
_LEFT_OUT = ("position_ids", "logits_to_keep")


def given_to(model: Any, text: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``text`` the engine takes, and a value for each other input that it must have.

    Args:
        model: an opened artifact. Where its manifest describes a cache, it makes up an empty one.
        text: ``input_ids`` and what goes with it; their shape is that of the other inputs, whose
            past is empty.
    """
    feeds = {name: value for name, value in text.items() if name in model.inputs}
    if not model.manifest.get("cache"):
        for name in model.inputs.keys() - feeds.keys() - set(_LEFT_OUT):
            if not model.inputs[name].get("optional"):
                feeds[name] = _value(model.inputs[name], *np.shape(text["input_ids"]))
    return feeds


def _value(described: Mapping[str, Any], rows: int, columns: int) -> Any:
    """Ones where they may be a mask, zeros of every other type."""
    dtype = np.dtype(described["dtype"])
    shape = [_size(size, rows, columns) for size in described["shape"]]
    return np.ones(shape, dtype) if dtype.kind in "iu" else np.zeros(shape, dtype)


def _size(size: int | str, rows: int, columns: int) -> int:
    if isinstance(size, int):
        return size
    if "past" in size:
        return 0
    return rows if "batch" in size else columns
