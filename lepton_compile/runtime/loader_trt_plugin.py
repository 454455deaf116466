"""The plugin of an artifact: registered with TensorRT, run from the bytes that were hashed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from lepton_compile.runtime.loader_code import checked_bytes
from lepton_compile.runtime.loader_guard import UnfitError

__all__ = ["registered"]


def registered(trt: Any, root: Path, manifest: Mapping[str, Any], engine: Mapping[str, Any]) -> Any:
    """What the artifact's plugin gives once it is known to TensorRT: run from the bytes hashed."""
    folder = str(PurePosixPath(engine["model"]).parent / engine["plugin"]["folder"])
    source = checked_bytes(root, manifest, f"{folder}/plugin_runtime.py")
    module = ModuleType("lepton_plugin_runtime")
    module.__file__ = str(root / folder / "plugin_runtime.py")
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up
    try:
        exec(compile(source, module.__file__, "exec"), module.__dict__)
        return module.register(trt, root / folder)
    except Exception as error:
        name = engine["plugin"]["name"]
        why = f"{type(error).__name__}: {error}"
        raise UnfitError(f"the plugin {name} cannot be used here: {why}") from error
