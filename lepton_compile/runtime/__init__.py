"""Run an artifact: the emitted loader, imported.

The loader is one file that every artifact carries a copy of. It stands apart from the rest of the
package: it imports numpy at once, and the engine's own runtime when a model is opened.
"""

from __future__ import annotations

from lepton_compile.runtime.loader import Generation, LoaderError, Model, load

__all__ = ["Generation", "LoaderError", "Model", "load"]
