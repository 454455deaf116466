"""scripts/environment: what it installs, and when it has nothing to do.

Python is stood in for by a script that notes what it is called with: a real installation takes
minutes, and is what every run of the tests begins with.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sources import REPOSITORY

PYTHON = """#!/usr/bin/env bash
echo "$@" >> "$LOG"
case "$*" in
  -V*) echo "Python 3.11.0" ;;
  *venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""
ALL = {"cpu", "rtx", "plugins", "serve", "gguf", "samples", "dev"}
SOME = {"cpu", "gguf", "samples"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script reads, and the python of the test."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/environment", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def installed(checkout: Path, *arguments: str) -> set[str]:
    """The extras that one run of the script installs."""
    log = checkout / "log"
    log.write_text("")
    command = [checkout / "scripts/environment", *arguments]
    variables = {"PATH": "/usr/bin:/bin", "PYTHON": str(checkout / "python"), "LOG": str(log)}
    subprocess.run(command, env=variables, check=True, capture_output=True)
    editable = [line for line in log.read_text().splitlines() if "--editable" in line]
    return {e for line in editable for e in line.split(".[")[1].rstrip("]").split(",")}


def test_the_tests_get_everything_and_the_quickstart_a_part(checkout: Path) -> None:
    (line,) = [
        line
        for line in (REPOSITORY / "scripts/quickstart").read_text().splitlines()
        if line.startswith("scripts/environment")
    ]
    assert set(line.split()[1].split(",")) == SOME
    assert installed(checkout, ",".join(SOME)) == SOME
    assert installed(checkout, ",".join(SOME)) == set()
    assert installed(checkout) == ALL
    assert installed(checkout) == set()
    assert installed(checkout, ",".join(SOME)) == set()


def test_a_set_is_added_to_what_is_there(checkout: Path) -> None:
    assert installed(checkout, "cpu") == {"cpu"}
    assert installed(checkout, "dev") == {"cpu", "dev"}
    assert installed(checkout, "cpu,dev") == set()


def test_other_pins_are_installed_again(checkout: Path) -> None:
    assert installed(checkout) == ALL
    with (checkout / "constraints.txt").open("a") as file:
        file.write("nothing==1\n")
    assert installed(checkout, "cpu") == {"cpu"}
    assert installed(checkout) == ALL
