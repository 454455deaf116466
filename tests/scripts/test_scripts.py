"""The commands of ``scripts/``: they run, are short, and the quickstart shows what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
COMMANDS = [
    *(path for path in sorted(SCRIPTS.iterdir()) if path.is_file() and not path.suffix),
    SCRIPTS / "bench" / "run",
    REPOSITORY / ".ci" / "run",
]


def test_the_commands_are_there() -> None:
    names = {path.name for path in COMMANDS}
    assert {"check", "environment", "gpu", "lint", "quickstart", "run", "test"} <= names


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_a_command_is_a_short_script_that_stops_at_the_first_error(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "set -euo pipefail" in text or text.count("\n") <= 3
    assert text.count("\n") <= 25
    subprocess.run(["bash", "-n", path], check=True)


def test_the_gpu_run_goes_on_when_a_part_has_no_time(tmp_path: Path) -> None:
    """No time for any: each says so, and the exit status tells."""
    done = subprocess.run(
        [SCRIPTS / "gpu", tmp_path / "out", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.endswith(": no time left")]
    parts = ["kernels", "attention", "engines", "models", "ort_cuda"]
    assert [line.split(":")[0] for line in said] == parts


def test_pins_are_exact_and_name_no_place() -> None:
    files = [REPOSITORY / "constraints.txt", *(SCRIPTS / "bench" / "peers").glob("*.txt")]
    assert len(files) >= 6
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins, path
        assert [p for p in pins if p.count("==") != 1 or "/" in p or "@" in p] == [], path


@pytest.mark.slow
@pytest.mark.samples
def test_the_quickstart_compares_the_engine_with_pytorch(tmp_path: Path) -> None:
    import lepton_compile

    folder = tmp_path / "minilm"
    lepton_compile.build("minilm/ort-cpu-int8", output=folder, check=False, verify=False)
    command = [sys.executable, SCRIPTS / "quickstart.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (meal,) = [line for line in lines if line.startswith("  Someone is having a meal.")]
    assert meal.endswith("A man is eating food.")
    (cosine,) = [line.split()[-1] for line in lines if "cosine at least" in line]
    assert float(cosine) > 0.98
    assert str(folder / "report.html") in done.stdout
