"""Folders for temporary files: gone with those who have them, also with those who are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lepton_plugins.workroom import YOUNG, Workroom

PROGRAM = """
import sys, time
from pathlib import Path
from lepton_plugins.workroom import Workroom
room = Workroom("test", *map(Path, sys.argv[1:]))
(Path(room.name) / "weights.bin").write_bytes(b"0" * 100)
print(room.name, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def somebody(scratch: Path, *above: str) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A process that has a folder, which is made to look old."""
    environment = os.environ | {"TMPDIR": str(scratch)}
    command = [sys.executable, "-c", PROGRAM, *above]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            room = Path(process.stdout.readline().strip())
            made_old(room)
            yield room, process
        finally:
            process.kill()


def made_old(folder: Path) -> None:
    then = time.time() - 2 * YOUNG
    os.utime(folder, (then, then))


def test_that_of_a_killed_process_is_removed_by_the_next(scratch: Path) -> None:
    with somebody(scratch) as (room, process):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (room / "weights.bin").is_file()
        with Workroom("test") as own:
            assert list(scratch.iterdir()) == [Path(own)]
    assert list(scratch.iterdir()) == []


def test_it_may_be_beside_what_it_is_for(scratch: Path) -> None:
    cache = scratch / "cache"
    cache.mkdir()
    with somebody(scratch, str(cache)) as (room, process):
        assert room.parent == cache
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Workroom("test"):
            assert (room / "weights.bin").is_file()
        with Workroom("test", cache) as own:
            assert list(cache.iterdir()) == [Path(own)]
    assert list(cache.iterdir()) == []


def test_that_of_a_living_process_stays(scratch: Path) -> None:
    with somebody(scratch) as (room, _):
        with Workroom("test"):
            assert (room / "weights.bin").is_file()
        assert list(scratch.iterdir()) == [room]


def test_what_is_new_of_another_kind_or_a_link_stays(scratch: Path) -> None:
    kept = scratch / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (scratch / "lepton-test-held-new").mkdir()
    (scratch / "lepton-other-held-old").mkdir()
    (scratch / "lepton-test-held-link").symlink_to(kept)
    for path in (scratch / "lepton-other-held-old", kept):
        made_old(path)
    then = time.time() - 2 * YOUNG
    os.utime(scratch / "lepton-test-held-link", (then, then), follow_symlinks=False)
    before = {*scratch.iterdir()}
    with Workroom("test"):
        pass
    assert {*scratch.iterdir()} == before
    assert (kept / "file").is_file()


def test_it_is_not_left_open(scratch: Path) -> None:
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("open files are told by /proc")
    before = len(list(fds.iterdir()))
    for _ in range(3):
        Workroom("test").cleanup()
    assert len(list(fds.iterdir())) == before
