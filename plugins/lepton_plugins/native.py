"""The library of CPU kernels: the C++ of all plugins, for onnxruntime's custom operators.

It is compiled by the machine's compiler when a build first needs it and kept by content, so the
same sources and the same compiler give the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.cxx import compile_library, find_compiler
from lepton_plugins.toolchain.store import content_key, kept

__all__ = ["FEATURES", "LIBRARY", "MACHINE", "SYSTEM", "build_library", "why_not"]

LIBRARY = "liblepton_cpu.so"
"""File name of the library in an artifact."""

SYSTEM, MACHINE = "Linux", "x86_64"
FEATURES = ("avx2", "fma", "f16c")
"""What the library needs of a processor, as Linux calls it; it says so itself where one lacks."""

_HERE = Path(__file__).parent
_CPUINFO = Path("/proc/cpuinfo")


def why_not(features: Callable[[], set[str]] | None = None) -> str | None:
    """Why the library cannot be made and run on this machine; ``None`` where it can."""
    if (platform.system(), platform.machine()) != (SYSTEM, MACHINE):
        return f"the kernels are for {SYSTEM} on {MACHINE}, not {platform.platform()}"
    missing = [name for name in FEATURES if name not in (features or _features)()]
    if missing:
        return f"this processor has no {', '.join(missing)}"
    if find_compiler() is None:
        return "there is no C++ compiler: install g++ or clang++, or set CXX"
    return None


def build_library(folder: Path | None, defines: Sequence[str] = ()) -> bytes:
    """The library.

    Args:
        folder: where it is kept between builds, ``None`` keeps nothing.
        defines: macros that choose the kernels of a kind of processor (``linear/csrc/tiles.cpp``);
            left out, the library chooses when it is loaded.

    Raises:
        PluginError: there is no compiler, or it declines.
    """
    compiler = find_compiler()
    if compiler is None:
        raise PluginError("there is no C++ compiler", hint="install g++ or clang++, or set CXX")
    sources = sorted(_HERE.glob("*/csrc/*.cpp"))
    headers = sorted(_HERE.glob("*/csrc/*.h"))
    flags = (*(f"-m{name}" for name in FEATURES), *(f"-D{name}" for name in defines))
    text = {str(path.relative_to(_HERE)): path.read_text("utf-8") for path in sources + headers}
    key = content_key(
        sources=text, compiler=compiler.version, command=compiler.command[1:], flags=flags
    )
    return kept(key, lambda: compile_library(compiler, sources, flags), folder)


def _features() -> set[str]:
    for line in _CPUINFO.read_text("utf-8").splitlines() if _CPUINFO.is_file() else ():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
