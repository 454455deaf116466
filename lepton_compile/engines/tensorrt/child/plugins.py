"""Plugins in the child: registered from the files that are shipped, and asked what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from lepton_compile.engines.tensorrt.child.events import Failure

__all__ = ["check_kernels", "explained", "register_all", "register_baked"]

RUNTIME_FILE = "plugin_runtime.py"


def register_all(library: Any, folders: Sequence[str]) -> list[Any]:
    """What ``register`` of each folder's ``plugin_runtime.py`` gives.

    Raises:
        Failure: one of them cannot be registered.
    """
    return [_register(library, Path(folder)) for folder in folders]


def _register(library: Any, folder: Path) -> Any:
    path = folder / RUNTIME_FILE
    # As the loader does it, and not by an import: that would leave bytecode in the artifact.
    module = ModuleType("lepton_plugin_runtime")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # its dataclasses look their module up
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        return module.register(library, folder)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise Failure("the plugin cannot be registered", where=str(path), found=found) from error


def register_baked(library: Any, architecture: int) -> Any:
    """Make the plugins known whose kernels, for ``architecture``, the plan takes in.

    Raises:
        Failure: this TensorRT has no such plugins.
    """
    from lepton_plugins.attention.compiled import compile_kernel
    from lepton_plugins.attention.plugin_qdp import register

    try:
        plugin = import_module(f"{library.__name__}.plugin")
    except ImportError as error:
        what = "this version takes no compiled plugins into a plan"
        raise Failure(what, where="plugin", found=str(error)) from error
    return register(library, plugin, compile_kernel, architecture)


@contextmanager
def explained(plugins: Sequence[Any]) -> Iterator[None]:
    """Add what a plugin raised to a failure: the library swallows it and says less."""
    try:
        yield
    except Failure as failure:
        raised = [f"plugin: {error}" for each in plugins for error in each.failures]
        if raised:
            found = failure.fields.get("found") or ""
            failure.fields["found"] = "\n".join([*raised, found])
        raise


def check_kernels(plugins: Sequence[Any]) -> None:
    """Every set of kernels that the plan will ask for is in the plugin's folder.

    Raises:
        Failure: one is not; a loader would find out when it opens the plan.
    """
    for each in plugins:
        for variant in each.variants.values():
            try:
                each.kernels.index.entries(variant)
            except Exception as error:
                what = "the plan asks for kernels that were not compiled"
                raise Failure(what, found=str(error)) from error
