"""The library of CPU kernels: the C++ of all plugins, for onnxruntime's custom operators.

It is compiled by the machine's compiler when a build first needs it and kept by content, so the
same sources and the same compiler give the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.cxx import Compilers, compile_library, find_compiler
from lepton_plugins.toolchain.store import content_key, kept

__all__ = [
    "EMULATED",
    "FEATURES",
    "LIBRARY",
    "MACHINE",
    "SYSTEM",
    "build_library",
    "library_sources",
    "why_not",
]

LIBRARY = "liblepton_cpu.so"
"""File name of the library in an artifact."""

SYSTEM, MACHINE = "Linux", "x86_64"
FEATURES = ("avx2", "fma", "f16c")
"""What the library needs of a processor, as Linux calls it; it says so itself where one lacks."""

EMULATED = "LEPTON_EMULATES_AVX512"
"""The macro that has what follows run on any processor."""

# Kernels that the library takes where a processor has what they need: these sources alone are
# compiled for it.
_WIDE, _WIDE_FEATURES = "_avx512.cpp", ("avx512f", "avx512bw", "avx512vnni")
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


def build_library(
    folder: Path | None, defines: Sequence[str] = (), compilers: Compilers | None = None
) -> bytes:
    """The library.

    Args:
        folder: where it is kept between builds, ``None`` keeps nothing.
        defines: macros that choose the kernels of a kind of processor (``linear/csrc/tiles.cpp``);
            left out, the library chooses when it is loaded.
        compilers: what runs the compiler, for those who may not wait to the end.

    Raises:
        PluginError: there is no compiler, or it declines.
    """
    compiler = find_compiler()
    if compiler is None:
        raise PluginError("there is no C++ compiler", hint="install g++ or clang++, or set CXX")
    sources = library_sources(defines)
    flags = (*(f"-m{name}" for name in FEATURES), *(f"-D{name}" for name in defines))
    read = [*sources, *sorted(_HERE.glob("*/csrc/*.h"))]
    key = content_key(
        sources={str(path.relative_to(_HERE)): path.read_text("utf-8") for path in read},
        compiler=compiler.version,
        command=compiler.command[1:],
        flags=[flags, *sources.values()],
    )
    return kept(key, lambda: compile_library(compiler, sources, flags, compilers), folder)


def library_sources(defines: Sequence[str] = ()) -> dict[Path, tuple[str, ...]]:
    """The source files, each with the flags that it alone is compiled with."""
    # Emulated, plain loops stand in place of each instruction, and take compilers long.
    wide = ("-O1",) if EMULATED in defines else tuple(f"-m{name}" for name in _WIDE_FEATURES)
    paths = sorted(_HERE.glob("*/csrc/*.cpp"))
    return {path: wide if path.name.endswith(_WIDE) else () for path in paths}


def _features() -> set[str]:
    for line in _CPUINFO.read_text("utf-8").splitlines() if _CPUINFO.is_file() else ():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
