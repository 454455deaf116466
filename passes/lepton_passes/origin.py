"""Where a graph came from: what is true of graphs that were captured need not be of those of files.

A captured model has rows that stand alone, inputs that mean what they are called, and caches that
a loader of ours keeps. A file has whatever somebody wrote, under the same names.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["from_file", "mark_file"]

_FILE = "lepton.file"  # of the graph, not of the model: clones of a model keep that


def mark_file(model: ir.Model) -> None:
    """Say that a graph is somebody else's, whatever its inputs are called."""
    model.graph.meta[_FILE] = True


def from_file(model: ir.Model) -> bool:
    """Whether :func:`mark_file` said so of a model, or of what it was cloned from."""
    return bool(model.graph.meta.get(_FILE, False))
