"""Run an artifact: the emitted loader, imported.

The loader is what every artifact carries a copy of, as one file that ``emit`` puts together: that
file imports the standard library alone, numpy and the engine's runtime when a model is opened. It
stands apart from the rest of the package.
"""

from __future__ import annotations

from lepton_compile.runtime.emit import emit
from lepton_compile.runtime.loader import LoaderError, Model, load
from lepton_compile.runtime.loader_continue import Generation

__all__ = ["Generation", "LoaderError", "Model", "emit", "load"]
