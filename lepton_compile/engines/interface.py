"""What an engine takes and gives, in the words of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from lepton_passes.match import KEYS_AND_VALUES, PAST

__all__ = ["cache_type", "own_interface", "signature", "sizes_of"]


def signature(values: Sequence[ir.Value]) -> list[dict[str, Any]]:
    """Name, numpy dtype and shape of each value; a dimension is a number or a name."""
    return [
        {
            "name": value.name or "",
            "dtype": value.dtype.numpy().name if value.dtype is not None else None,
            "shape": sizes_of(value),
        }
        for value in values
    ]


def sizes_of(value: ir.Value) -> list[int | str]:
    """Size of each dimension, a number or a name: without one, a name of its own."""
    return [
        size if isinstance(size, int) else size.value or f"{value.name}.{axis}"
        for axis, size in enumerate(value.shape or ())
    ]


def own_interface(graph: ir.Graph) -> dict[str, list[dict[str, Any]]]:
    """What of an engine's interface is not the model's public one: caches in another type, and all
    outputs."""
    past = [value for value in graph.inputs if (value.name or "").startswith(PAST)]
    inputs = [{**entry, "optional": False} for entry in signature(past)]
    return {"inputs": inputs, "outputs": signature(graph.outputs)}


def cache_type(graph: ir.Graph) -> dict[str, Any] | None:
    """Type of keys and values; that past and present may share a buffer is the manifest's word."""
    past = [value for value in graph.inputs if (value.name or "").startswith(KEYS_AND_VALUES)]
    if not past or past[0].dtype is None:
        return None
    return {"dtype": past[0].dtype.numpy().name}
