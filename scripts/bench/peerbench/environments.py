"""An environment per tool: made on first use from its pins in ``peers/``."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["BENCH", "PEERS", "REPOSITORY", "RUNNERS", "environment", "lepton_command", "pins"]

BENCH = Path(__file__).resolve().parent.parent
REPOSITORY = BENCH.parent.parent
PEERS, RUNNERS = BENCH / "peers", BENCH / "runners"
ATTEMPTS = 4


def environment(name: str, cache: Path) -> Path:
    """The interpreter of the environment ``name``; ``project`` is the one running this."""
    if name == "project":
        return Path(sys.executable)
    folder, wanted = cache / name, PEERS / f"{name}.txt"
    stamp, python = folder / "stamp", folder / "bin" / "python"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"making the environment of {name}", file=sys.stderr)
    if not python.exists():
        venv.create(folder, with_pip=True)
    _install(python, wanted)
    stamp.write_text(digest)
    return python


def _install(python: Path, wanted: Path) -> None:
    """Install the pins; a package without a wheel is compiled, one file at a time."""
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    one_job = os.environ | {"MAKEFLAGS": "-j1", "CMAKE_BUILD_PARALLEL_LEVEL": "1"}
    for attempt in range(ATTEMPTS):
        if subprocess.run([*pip, "-r", str(wanted)], env=one_job, check=False).returncode == 0:
            return
        print(f"attempt {attempt + 1} of {ATTEMPTS} failed", file=sys.stderr)
    raise RuntimeError(f"cannot install {wanted.name}")


def pins(name: str) -> dict[str, str]:
    """Package -> version, as pinned for the environment ``name``."""
    path = PEERS / f"{name}.txt" if name != "project" else REPOSITORY / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def lepton_command(*arguments: object) -> list[str]:
    """The command line of lepton-compile as installed beside this interpreter."""
    return [str(Path(sys.executable).with_name("lepton-compile")), *map(str, arguments)]
