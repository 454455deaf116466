"""Load a TensorRT; ``trt`` is the module of the one that was loaded.

The parser of TensorRT-RTX opens ``libtensorrt_rtx.so`` when it meets a plugin; the pip package has
that library as ``libtensorrt_rtx.so.1`` only, and a failed open ends the process. The parser looks
beside itself first, at the path it was itself opened by, links not followed: so it is opened
through a private folder of links, where the name exists. The Python module then finds it loaded.
"""

from __future__ import annotations

import ctypes
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["PARSER", "link", "load", "trt"]

RUNTIME, MISSING = "libtensorrt_rtx.so.1", "libtensorrt_rtx.so"
PARSER = "libtensorrt_onnxparser_rtx.so.1"


class _Module:
    """Stands for the module that ``load`` will have loaded."""

    def __init__(self) -> None:
        self.loaded: Any = None

    def __getattr__(self, name: str) -> Any:
        if self.loaded is None:
            raise RuntimeError("load() comes before the first use of the library")
        return getattr(self.loaded, name)


trt: Any = _Module()


def load(module: str, libraries: str, links: Path) -> Any:
    """Import ``module`` with its libraries complete.

    Args:
        libraries: package that holds the shared libraries; empty where there is nothing to mend.
        links: private folder that outlives the process' use of the library.

    Raises:
        ImportError, OSError: it is not installed, or not whole.
    """
    if libraries and sys.platform == "linux":
        folder = link(libraries, links)
        for name in (RUNTIME, PARSER):  # the runtime first: the parser's symbols come from it
            ctypes.CDLL(str(folder / name))
    trt.loaded = import_module(module)
    return trt.loaded


def link(libraries: str, links: Path) -> Path:
    """A folder of links to the libraries of a package, under the names that are looked for."""
    spec = find_spec(libraries)
    if spec is None or spec.origin is None:
        raise ImportError(f"No module named {libraries!r}")
    links.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = Path(spec.origin).parent
    for name, target in ((RUNTIME, RUNTIME), (PARSER, PARSER), (MISSING, RUNTIME)):
        path = links / name
        if not path.is_symlink():
            path.symlink_to(source / target)
    return links
