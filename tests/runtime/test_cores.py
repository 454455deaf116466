"""Threads by default: what the machine has, and what a container has time for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_compile.runtime import loader

NONE_1 = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({}, 3),
        ({"cpu.max": "max 100000\n"}, 3),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "290000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 3),
        ({"cpu.max": ""}, 3),
        (NONE_1, 3),
        (NONE_1 | {"cpu/cpu.cfs_quota_us": "200000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "100000\n"}, 3),
    ],
)
def test_threads_are_cores_that_there_is_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], threads: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9001, 9002, 9003}, raising=False)
    monkeypatch.setattr(loader, "GROUP", tmp_path)
    assert loader.cores() == threads


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a quota of one processor, where this machine lets us make one."""
    second = (loader.GROUP / "cgroup.controllers").exists()
    made = (loader.GROUP if second else loader.GROUP / "cpu") / f"lepton-test-{os.getpid()}"
    name, text = ("cpu.max", "100000 100000") if second else ("cpu.cfs_quota_us", "100000")
    try:
        made.mkdir()
    except OSError:
        pytest.skip("control groups are not ours to make here")
    try:
        (made / name).write_text(text)
        yield made
    except OSError:
        pytest.skip("control groups have no quotas here")
    finally:
        made.rmdir()


PROGRAM = """
from lepton_compile.api.libraries import keep_to_cores, own_process
from lepton_compile.runtime.loader import cores
own_process()
keep_to_cores()
import torch
print(cores(), torch.get_num_threads())
"""


def test_what_runs_in_a_container_has_as_many_threads_as_its_quota(group: Path) -> None:
    """As a container sees it: its own group is where the machine's is for others."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    inside = 'mount --bind "$0" "$1" && exec "$2" -c "$3"'
    place = [str(group), str(group.parent), sys.executable, PROGRAM]
    environment = {name: text for name, text in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, *place],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("namespaces are not ours to make here")
    assert done.stdout.split() == ["1", "1"], done.stderr
