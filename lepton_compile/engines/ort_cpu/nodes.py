"""The nodes of a lowered model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["all_nodes"]


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Those of the main graph, then of every function."""
    for body in (model.graph, *model.functions.values()):
        yield from body
