"""Run an artifact: the emitted loader, imported.

The loader is what every artifact carries a copy of. It stands apart from the rest of the package:
it imports numpy at once, and the engine's own runtime when a model is opened.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lepton_compile.runtime.loader import Generation, LoaderError, Model, load

__all__ = ["Generation", "LoaderError", "Model", "emit", "load"]


def emit(folder: Path) -> None:
    """Copy the loader into ``folder``: loader.py, and loader_text.py which it opens for text."""
    for name in ("loader.py", "loader_text.py"):
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
