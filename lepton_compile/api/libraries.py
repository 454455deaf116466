"""Load torch and transformers before the first stage, without what a build never calls.

Their import is a third of the time of a small build. Much of it is what they look at in case it is
wanted: transformers reads the source of all its models twice, losses of image models bring scipy,
and torch brings triton. Where the process is the command line's own, both are told that those
packages are not installed, which they know how to live with.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lepton_compile.collection import uncollected
from lepton_compile.progress import Progress

__all__ = ["in_one_order", "keep_to_cores", "loading", "own_process"]

# Of torch's compiler for GPUs, which nothing here uses; our kernels import triton themselves.
HIDDEN = "triton"
UNUSED = "is_scipy_available"

_own = False


def own_process() -> None:
    """Say that nobody else uses the libraries in this process."""
    global _own
    _own = True


def keep_to_cores() -> None:
    """Tell OpenMP, which knows of no container's quota, how many threads there may be in a process
    of its own; before numpy or torch are imported."""
    if _own:
        from lepton_compile.runtime.loader import cores

        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


@contextmanager
def in_one_order() -> Iterator[None]:
    """Products of numpy are summed by one thread inside: several add in another order, and what is
    fitted to the sums would depend on how many cores there are."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


@contextmanager
def loading(progress: Progress | None = None) -> Iterator[None]:
    """The stages' modules are imported inside; the libraries that they need are there.

    In a process of somebody else's (``lc.build`` in a notebook) the libraries are complete.

    Args:
        progress: told where they have to be loaded first, which takes seconds.
    """
    keep_to_cores()
    with uncollected():
        if "transformers.modeling_utils" not in sys.modules:
            if progress is not None:
                progress.stage("load", "torch and transformers")
            _load()
        yield
    if _own:
        gc.freeze()  # what was imported stays: nobody needs to look through it for garbage


def _load() -> None:
    with ExitStack() as stack:
        import onnx_ir  # noqa: F401
        import torch
        import transformers

        stack.enter_context(_listed_once())
        if _own:
            stack.enter_context(_hidden(HIDDEN))
            stack.enter_context(_without(transformers.utils, UNUSED))
        import torch.export._trace  # noqa: F401
        import transformers.modeling_utils


@contextmanager
def _listed_once() -> Iterator[None]:
    """``transformers`` has read what its models define; ``transformers.models`` takes that."""
    from transformers.utils import import_utils

    read = getattr(import_utils, "create_import_structure_from_path", None)
    if read is None:
        yield
        return

    def of_folder(path: str | Path) -> Any:
        given = Path(path)
        # The function is cached by its argument: the folder, for itself as for its __init__.py.
        return read(given.parent if given.name == "__init__.py" else path)

    import_utils.create_import_structure_from_path = of_folder
    try:
        import transformers.models  # noqa: F401

        yield
    finally:
        import_utils.create_import_structure_from_path = read


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """An import of ``package`` fails as if it were not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def _without(utils: Any, name: str) -> Iterator[None]:
    """``utils.<name>``, which asks whether a package is installed, answers no."""
    asked = getattr(utils, name, None)
    if asked is None:
        yield
        return
    setattr(utils, name, lambda: False)
    try:
        yield
    finally:
        setattr(utils, name, asked)
