"""The machine's C++ compiler: found, asked, and quoted when it declines."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.cxx import Compiler, Compilers, compile_library, find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    find_compiler.cache_clear()
    yield
    find_compiler.cache_clear()


def _source(folder: Path, text: str, name: str = "one.cpp") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _compiler() -> Compiler:
    found = find_compiler()
    assert found is not None
    return found


@needs_compiler
def test_a_library_of_several_files(tmp_path: Path) -> None:
    exported = 'extern "C" __attribute__((visibility("default"))) int twice(int x)'
    sources = [
        _source(tmp_path, f"int sum(int, int);\n{exported} {{ return sum(x, x); }}"),
        _source(tmp_path, "int sum(int a, int b) { return a + b; }", "two.cpp"),
    ]
    data = compile_library(_compiler(), dict.fromkeys(sources, ()), ())
    again = compile_library(_compiler(), dict.fromkeys(sources, ()), ())
    assert data == again, "the same bytes each time"
    assert str(tmp_path).encode() not in data
    library = tmp_path / "made.so"
    library.write_bytes(data)
    loaded = ctypes.CDLL(str(library))
    assert loaded.twice(21) == 42
    assert not hasattr(loaded, "sum"), "what is not marked stays inside"


@needs_compiler
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int f() { return missing; }", "missing"),
        ("this is no program", "no program"),
    ],
)
def test_its_words_are_quoted(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PluginError) as caught:
        compile_library(_compiler(), {_source(tmp_path, text): ()}, ())
    assert caught.value.where == "one.cpp"
    assert words in str(caught.value.found)
    assert "kernels: builtin" in str(caught.value.hint)


@needs_compiler
def test_cxx_may_carry_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _compiler()
    monkeypatch.setenv("CXX", f"{first.command[0]} -Wno-psabi")
    find_compiler.cache_clear()
    found = _compiler()
    assert found.command == (first.command[0], "-Wno-psabi")
    assert found.version == first.version


@pytest.mark.parametrize("named", ["/nowhere/c++", "false"])
def test_what_is_named_and_missing_is_not_replaced(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", named)
    find_compiler.cache_clear()
    assert find_compiler() is None


def test_without_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    find_compiler.cache_clear()
    assert find_compiler() is None


@needs_compiler
def test_a_file_may_have_flags_of_its_own(tmp_path: Path) -> None:
    text = 'extern "C" __attribute__((visibility("default"))) int {}() {{ return ANSWER; }}'
    one, two = (_source(tmp_path, text.format(name), f"{name}.cpp") for name in ("one", "two"))
    library = tmp_path / "made.so"
    flags = {one: ("-DANSWER=1",), two: ("-DANSWER=2",)}
    library.write_bytes(compile_library(_compiler(), flags, ("-O0",)))
    loaded = ctypes.CDLL(str(library))
    assert (loaded.one(), loaded.two()) == (1, 2)


def test_compilers_that_nobody_waits_for(tmp_path: Path) -> None:
    """One runs, and two more would: without an end a process waited until all were done."""
    script = _source(tmp_path, "#!/bin/sh\necho begun >> $0.log\nsleep 600\n", "slow")
    script.chmod(0o755)
    compilers, told = Compilers(), Path(f"{script}.log")
    sources = dict.fromkeys([_source(tmp_path, "", f"{n}.cpp") for n in range(3)], ())
    with ThreadPoolExecutor(1) as pool:
        slow = Compiler((str(script),), "slow")
        found = pool.submit(compile_library, slow, sources, (), compilers)
        while not told.exists() or not told.read_text():
            time.sleep(0.01)
        compilers.stop()
        with pytest.raises(PluginError, match="declines"):
            found.result(timeout=60)
    assert told.read_text() == "begun\n"
    assert compilers.run([str(script)])[0] != 0


ENDLESS = """
import sys
from pathlib import Path
from lepton_plugins.toolchain.cxx import Compiler, compile_library
compile_library(Compiler((sys.argv[1],), "slow"), {Path("one.cpp"): ()}, ())
"""


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, told = tmp_path / "scratch", tmp_path / "told"
    scratch.mkdir()
    slow = _source(
        tmp_path, f"#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\nexec sleep 600\n"
    )
    slow.chmod(0o755)
    command = [sys.executable, "-c", ENDLESS, str(slow)]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(scratch)}) as process:
        while not told.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    os.kill(int(told.read_text()), signal.SIGKILL)  # it would go on without who began it
    (left,) = scratch.iterdir()
    then = time.time() - 3600
    os.utime(left, (then, then))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(PluginError, match="declines"):
        compile_library(Compiler(("false",), "none"), {Path("one.cpp"): ()}, ())
    assert list(scratch.iterdir()) == []
