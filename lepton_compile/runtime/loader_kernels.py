"""Kernels of our own for onnxruntime: a library beside the engine, for one kind of machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lepton_compile.runtime.loader_guard import UnfitError, failing, refuse

__all__ = ["register_kernels"]


def register_kernels(options: Any, root: Path, engine: Mapping[str, Any]) -> None:
    """Give a session the operators of the engine's library, whose digest has been checked."""
    kernels = engine["kernels"]
    here, built = (platform.system(), platform.machine()), (kernels["system"], kernels["machine"])
    wrong = f"its kernels are for {' on '.join(built)}, this is {' on '.join(here)}"
    refuse(here != built, f"{wrong}: build with kernels: builtin", UnfitError)
    library = PurePosixPath(engine["model"]).parent / kernels["library"]
    refuse(str(library) not in engine["files"], f"the engine's files do not list {library.name}")
    with failing(f"{library.name} does not load (kernels: builtin needs none)", UnfitError):
        options.register_custom_ops_library(str(root / library))
