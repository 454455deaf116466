"""The machine's C++ compiler: which it is, and a shared library from source files.

A library is one for dlopen on Linux: it needs nothing but libc, exports what the sources mark as
visible, and holds no path, time or name of the machine that made it.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lepton_plugins.spec import PluginError
from lepton_plugins.workroom import Workroom

__all__ = ["Compiler", "Compilers", "compile_library", "find_compiler"]

CANDIDATES = ("c++", "g++", "clang++")
# Position independent, no run-time library of C++ behind it, the same numbers with any compiler.
COMPILE = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"),
    *("-ffp-contract=off", "-fno-math-errno"),
)
LINK = ("-shared", "-s", "-Wl,--build-id=none", "-Wl,--as-needed", "-Wl,-z,now")
_WORDS = 2000


@dataclass(frozen=True)
class Compiler:
    """A command, and the first line of what it says of itself."""

    command: tuple[str, ...]
    version: str


class Compilers:
    """The compilers that run for one library, to be stopped where nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock, self._stopped = threading.Lock(), False
        self._children: set[subprocess.Popen[str]] = set()

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit status and words of a command; it is not begun once they were stopped."""
        with self._lock:
            if self._stopped:
                return -signal.SIGKILL, "stopped"
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,  # what it starts ends with it, and holds its pipes until then
            )
            self._children.add(child)
        out, error = child.communicate()
        with self._lock:
            self._children.discard(child)
        return child.returncode, (error or out).strip()

    def stop(self) -> None:
        """Kill those that run, and begin no more."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                if child.poll() is None:  # else its number may be another's by now
                    os.killpg(child.pid, signal.SIGTERM)


@functools.cache
def find_compiler() -> Compiler | None:
    """That of ``$CXX``, which may carry arguments, else the first there is on the path."""
    named = os.environ.get("CXX")
    for words in [shlex.split(named)] if named else [[name] for name in CANDIDATES]:
        path = shutil.which(words[0]) if words else None
        if path is None:
            continue
        told = subprocess.run(
            [path, *words[1:], "--version"], capture_output=True, text=True, check=False
        )
        if told.returncode == 0 and told.stdout:
            return Compiler((path, *words[1:]), told.stdout.splitlines()[0].strip())
    return None


def compile_library(
    compiler: Compiler,
    sources: Mapping[Path, Sequence[str]],
    flags: Sequence[str],
    compilers: Compilers | None = None,
) -> bytes:
    """The shared library of ``sources``.

    Args:
        compiler: what it is made by.
        sources: each with flags of its own, which most have none of.
        flags: what the processor has, such as ``-mavx2``; for all.
        compilers: what runs it, for those who may not wait to the end.

    Raises:
        PluginError: the compiler declines; its words are in ``found``.
    """
    compilers = compilers or Compilers()
    run = functools.partial(_run, compilers, compiler)
    with Workroom("cxx") as folder:
        objects = [Path(folder) / f"{index}.o" for index in range(len(sources))]
        prelude = _prelude(run, Path(folder), flags)

        def compiled(source: Path, made: Path) -> None:
            own = sources[source]
            # A header that was parsed for one processor does not do for another.
            parsed = [] if own else ["-include", str(prelude)]
            named = [*parsed, "-c", str(source), "-o", str(made)]
            run([*COMPILE, *flags, *own, *named], source.name)

        with ThreadPoolExecutor() as pool:
            try:
                list(pool.map(compiled, sources, objects))
            except BaseException:  # a source that is declined, or somebody who wants to end
                compilers.stop()
                raise
        library = Path(folder) / "library.so"
        run([*LINK, *map(str, objects), "-o", str(library)], "the linker")
        return library.read_bytes()


def _prelude(run: Callable[..., None], folder: Path, flags: Sequence[str]) -> Path:
    """What sources include, parsed once: the intrinsics take longer than most of what uses them."""
    header = folder / "prelude.h"
    header.write_text("#include <immintrin.h>\n", encoding="utf-8")
    named = ["-x", "c++-header", str(header), "-o", f"{header}.gch"]
    run([*COMPILE, *flags, *named], header.name)
    return header


def _run(compilers: Compilers, compiler: Compiler, arguments: Sequence[str], where: str) -> None:
    status, words = compilers.run([*compiler.command, *arguments])
    if status:
        raise PluginError(
            "the C++ compiler declines",
            where=where,
            found=words[:_WORDS],
            available=[compiler.version],
            hint="set CXX to another compiler, or build with kernels: builtin",
        )
