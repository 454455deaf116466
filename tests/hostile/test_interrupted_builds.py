"""A build that is killed, or that fills a disk, while it writes its weights or compares passes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lepton_compile as lc
from tests.small import llama, saved

# What a disk without space does here is what a limit on the size of a file does.
PROGRAM = """
import os, resource, signal, sys
import lepton_compile as lc
from lepton_compile.api.libraries import own_process
from lepton_compile.progress import Progress

own_process()  # loads as the command line does: less

class Killing(Progress):
    def step(self, what, done, total):
        if what.startswith("writing") and done > 2:
            os.kill(os.getpid(), signal.SIGKILL)

kill = sys.argv[3] == "kill"
if not kill:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for check in [False] if kill else [False, True]:
    progress = Killing() if kill else None
    try:
        lc.build(
            model=sys.argv[1], output=sys.argv[2], check=check, verify=False, progress=progress
        )
    except lc.LeptonError as error:
        print(type(error).__name__, error, end="\\0")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("LlamaForCausalLM", llama(), tmp_path_factory.mktemp("model"))


def attempt(
    folder: Path, output: Path, how: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(output), how]
    everything = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=everything)


def test_a_full_disk_is_named_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    """That of the output, where nothing is checked; else that of temporary files comes first."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = attempt(folder, tmp_path / "out", "fill", TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr
    writing, checking, _ = done.stdout.split("\0")
    assert f"ArtifactError {tmp_path / 'out'}: the artifact could not be written" in writing
    assert "ulimit -f" in writing  # which is how the disk is made full here
    assert ".partial" not in writing
    assert f"ArtifactError {scratch}: the folder for temporary files" in checking
    assert "TMPDIR" in checking
    assert list(scratch.glob("lepton-*")) == []
    assert list(tmp_path.iterdir()) == [scratch]


def test_a_killed_build_is_cleaned_up_by_the_next(folder: Path, tmp_path: Path) -> None:
    done = attempt(folder, tmp_path / "out", "kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".out.partial-")
    lc.build(model=str(folder), output=tmp_path / "out", check=False, verify=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_build_that_fails_does_not_wait_for_the_compiler(folder: Path, tmp_path: Path) -> None:
    """It would not end before the library is compiled that nobody needs any more."""
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\n[ "$1" = --version ] && echo slow && exit\nexec sleep 600\n')
    slow.chmod(0o755)
    program = (
        "import sys, lepton_compile as lc\n"
        "from lepton_compile.progress import Progress\n"
        "class Failing(Progress):\n"
        "    def stage(self, name, detail):\n"
        "        if name == 'passes': raise KeyboardInterrupt\n"
        "how = {'quantize': 'int8', 'check': False, 'verify': False, 'progress': Failing()}\n"
        "try: lc.build(model=sys.argv[1], output=sys.argv[2], kernels='native', **how)\n"
        "except KeyboardInterrupt: print('ended')\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "out")]
    environment = os.environ | {"CXX": str(slow), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.stdout == "ended\n", done.stderr
