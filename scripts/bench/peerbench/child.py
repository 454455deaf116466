"""Run a command as a process of its own: its output, wall time and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerbench.environments import RUNNERS

__all__ = ["ChildError", "Done", "run", "runner"]

TAIL = 2000
# A process inherits the peak of the one that forked it. This one is small, and reports on the
# command that it starts: exit status, seconds, and the largest resident size of what it waited for.
LAUNCH = """
import json, resource, subprocess, sys, time
begin = time.perf_counter()
code = subprocess.call(sys.argv[2:])
wall = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "wall_s": wall, "peak_mb": peak}, file)
"""


class ChildError(RuntimeError):
    """The command failed; the message ends with what it printed last."""


@dataclass(frozen=True)
class Done:
    """A finished command. ``peak_mb`` is the largest resident size of any process it waited for."""

    output: str
    wall_s: float
    peak_mb: float


def run(command: Sequence[object], threads: int, cwd: Path | None = None) -> Done:
    """Run ``command`` with ``threads`` threads; raises ``ChildError`` when it fails."""
    arguments = [str(part) for part in command]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as report,
    ):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCH, report.name, *arguments],
            stdout=output,
            stderr=errors,
            cwd=cwd,
            env=inherited | limits | offline,
            check=False,
        )
        text, said = _text(output), _text(errors)
        found = json.loads(report.read() or '{"code": "none"}')
    if found["code"] != 0:
        raise ChildError(f"exit {found['code']}: {arguments[0]}\n{(text + said)[-TAIL:]}")
    return Done(text, found["wall_s"], found["peak_mb"])


def runner(python: Path, name: str, action: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """What ``runners/<name>.py`` says of ``job``, with the peak memory of its process."""
    command = [python, RUNNERS / f"{name}.py", action, json.dumps(job)]
    done = run(command, int(job["threads"]))
    result: dict[str, Any] = json.loads(done.output.strip().splitlines()[-1])
    return result | {"wall_s": round(done.wall_s, 3), "peak_mb": round(done.peak_mb, 1)}


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))
