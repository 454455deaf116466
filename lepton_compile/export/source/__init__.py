"""Where a model comes from: the hub, a folder, an installed package, a GGUF or an ONNX file."""

from __future__ import annotations

from lepton_compile.export.source.locate import resolve
from lepton_compile.export.source.model import Kind, Source

__all__ = ["Kind", "Source", "resolve"]
