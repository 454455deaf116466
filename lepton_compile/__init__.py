"""Compile Hugging Face models into engines that any server can load.

    import lepton_compile as lc
    artifact = lc.build("recipe.yaml", output="out/minilm")
    model = lc.load("out/minilm")

What stands in the way of a build or plan is a ``LeptonError``; where a demanded number was missed
it is a ``GateError``, with the ``report``. What a loaded model declines is a ``LoaderError``.

Importing the package imports nothing heavy: each name is loaded on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lepton_compile.api import bench, build, load, plan, rebuild, verify
    from lepton_compile.api.planning import Plan
    from lepton_compile.api.rebuilding import Rebuilt
    from lepton_compile.api.verifying import Verification
    from lepton_compile.artifact import Artifact
    from lepton_compile.errors import GateError, LeptonError
    from lepton_compile.recipe import Recipe
    from lepton_compile.runtime import LoaderError, Model

__all__ = [
    "Artifact",
    "GateError",
    "LeptonError",
    "LoaderError",
    "Model",
    "Plan",
    "Rebuilt",
    "Recipe",
    "Verification",
    "__version__",
    "bench",
    "build",
    "load",
    "plan",
    "rebuild",
    "verify",
]

__version__ = "0.1.0"

# From 1.29 on onnxruntime reports to its makers what it runs, unless it is told before it is
# imported. Who wants that sets the variable; what is compiled here may be nobody's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Artifact": "lepton_compile.artifact",
    "GateError": "lepton_compile.errors",
    "LeptonError": "lepton_compile.errors",
    "LoaderError": "lepton_compile.runtime",
    "Model": "lepton_compile.runtime",
    "Plan": "lepton_compile.api.planning",
    "Rebuilt": "lepton_compile.api.rebuilding",
    "Recipe": "lepton_compile.recipe",
    "Verification": "lepton_compile.api.verifying",
    "bench": "lepton_compile.api",
    "build": "lepton_compile.api",
    "load": "lepton_compile.api",
    "plan": "lepton_compile.api",
    "rebuild": "lepton_compile.api",
    "verify": "lepton_compile.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
