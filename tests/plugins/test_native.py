"""The library of CPU kernels: whether it can be made here, and what it holds."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_plugins import native
from lepton_plugins.native import FEATURES, build_library, library_sources, why_not
from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.cxx import COMPILE, find_compiler
from tests.plugins.cpu_library import library, needs_library


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    find_compiler.cache_clear()
    yield
    find_compiler.cache_clear()


def test_other_machines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert str(why_not()).startswith("the kernels are for Linux on x86_64, not ")


def test_processors_are_told_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: native.SYSTEM)
    monkeypatch.setattr(platform, "machine", lambda: native.MACHINE)
    assert why_not(lambda: {"sse2", "avx2"}) == "this processor has no fma, f16c"
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert "there is no C++ compiler" in str(why_not(lambda: set(FEATURES)))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(PluginError, match="there is no C\\+\\+ compiler"):
        build_library(None)


@needs_library
def test_it_is_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = library().read_bytes()
    calls = []
    monkeypatch.setattr(native, "compile_library", lambda *_: calls.append(1) or made)
    assert build_library(tmp_path) == build_library(tmp_path) == made
    assert len(calls) == 1
    monkeypatch.setattr(native, "FEATURES", (*FEATURES, "avx"))
    build_library(tmp_path)
    assert len(calls) == 2, "other flags are other contents"


@needs_library
def test_the_sources_give_no_warnings(tmp_path: Path) -> None:
    sources = library_sources()
    for own in set(sources.values()):
        assert _warnings([path for path in sources if sources[path] == own], tmp_path, own) == ""


def test_a_warning_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "unused.cpp"
    source.write_text("#include <immintrin.h>\nvoid f() { int unused; }\n")
    assert "unused.cpp:2" in _warnings([source], tmp_path)


def _warnings(sources: list[Path], folder: Path, own: tuple[str, ...] = ()) -> str:
    """What the compiler says of these; the instructions' own header, which takes a second to read
    and is in most of them, is read once."""
    compiler = find_compiler()
    assert compiler is not None
    flags = [*COMPILE, *(f"-m{name}" for name in FEATURES), "-Wall", "-Wextra", "-Wshadow"]
    flags += own
    header = folder / "instructions.h"
    header.write_text("#include <immintrin.h>\n")
    command = [*compiler.command, *flags]
    subprocess.run([*command, "-x", "c++-header", str(header), "-o", f"{header}.gch"], check=True)
    command += ["-include", str(header), "-fsyntax-only", *map(str, sources)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@needs_library
def test_it_exports_one_name_and_needs_libc_alone() -> None:
    loaded = ctypes.CDLL(str(library()))
    assert loaded.RegisterCustomOps
    data = library().read_bytes()
    assert b"libstdc++" not in data
    assert b"/tmp" not in data
    assert str(Path.home()).encode() not in data
