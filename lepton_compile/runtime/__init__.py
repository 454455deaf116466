"""Run an artifact: the emitted loader, imported.

The loader is what every artifact carries a copy of. It stands apart from the rest of the package:
it imports numpy at once, and the engine's own runtime when a model is opened.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lepton_compile.runtime.loader import LoaderError, Model, load
from lepton_compile.runtime.loader_generate import Generation

__all__ = ["Generation", "LoaderError", "Model", "emit", "load"]


def emit(folder: Path) -> None:
    """Copy the loader into ``folder``: loader.py and the two files it opens when needed."""
    for name in ("loader.py", "loader_generate.py", "loader_text.py"):
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
