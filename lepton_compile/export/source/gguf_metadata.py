"""What a GGUF file says, in the form that configurations want it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader

__all__ = ["layer_types", "needed", "number", "refused"]


def number(header: GGUFHeader, key: str, default: Any = None) -> Any:
    """A number that some files give once for each layer.

    Raises:
        SourceError: it is not the same in each.
    """
    value = header.key(key, default)
    if not isinstance(value, np.ndarray):
        return value
    if value.size == 0 or (value != value.flat[0]).any():
        raise refused(header, f"{key} that differs from layer to layer: {value.tolist()}")
    return value.flat[0].item()


def needed(header: GGUFHeader, key: str) -> Any:
    """A number that its architecture cannot do without. Raises SourceError."""
    value = number(header, key)
    if value is None:
        raise SourceError(
            "The GGUF file lacks what a configuration needs.",
            where=str(header.path),
            found=f"missing: {key}",
        )
    return value


def layer_types(header: GGUFHeader, layers: int, period: int) -> list[str]:
    """Which layers attend to a window alone: all but every ``period``-th, if the file says nothing.

    Raises:
        SourceError: it says so of another number of layers.
    """
    said = header.key("attention.sliding_window_pattern", period)
    if isinstance(said, np.ndarray):
        sliding = [bool(each) for each in said]
    else:
        sliding = [said == 0 or (layer + 1) % said != 0 for layer in range(layers)]
    if len(sliding) != layers:
        raise refused(header, f"a window in {len(sliding)} of {layers} layers")
    return ["sliding_attention" if each else "full_attention" for each in sliding]


def refused(header: GGUFHeader, found: str, what: str = "What this GGUF file holds") -> SourceError:
    """The error for what a configuration has no word for."""
    return SourceError(
        f"{what} cannot be expressed.",
        where=str(header.path),
        found=found,
        hint="Give the Hugging Face folder of the model instead.",
    )
