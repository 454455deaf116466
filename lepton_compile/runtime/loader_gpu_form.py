"""What is read of an engine for a GPU besides."""

from __future__ import annotations

from lepton_compile.runtime.loader_guard import TENSOR

__all__ = ["GPU"]

IO = {"inputs?": [TENSOR], "outputs?": [TENSOR]}
MADE = {"aliases?": {"*": str}, "cache?": {"buckets?": [int]}, "compute_capabilities?": [str]}
PLUGIN = {"name": str, "folder": str, "architectures": [str]}
GPU = {"engines": [{**MADE, "io?": IO, "plugin?": PLUGIN}]}
