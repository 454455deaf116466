"""Weights on disk, read in blocks of rows: safetensors folders and GGUF files."""

from __future__ import annotations

from lepton_compile.export.checkpoint.base import Checkpoint, Location, TensorInfo
from lepton_compile.export.checkpoint.gguf import GGUFCheckpoint
from lepton_compile.export.checkpoint.integers import Integers
from lepton_compile.export.checkpoint.merged import MergedCheckpoint
from lepton_compile.export.checkpoint.safetensors import SafetensorsCheckpoint
from lepton_compile.export.checkpoint.split import SplitCheckpoint

__all__ = [
    "Checkpoint",
    "GGUFCheckpoint",
    "Integers",
    "Location",
    "MergedCheckpoint",
    "SafetensorsCheckpoint",
    "SplitCheckpoint",
    "TensorInfo",
]
