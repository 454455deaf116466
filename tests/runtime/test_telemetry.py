"""onnxruntime reports nothing of what is built or run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime import tiny

VARIABLE = "ORT_DISABLE_TELEMETRY"
# It is silent where tests run; and whatever it says here goes nowhere.
SILENT = (VARIABLE, "CI", "ORT_RUNNING_UNIT_TESTS")
NOWHERE = {"https_proxy": "http://127.0.0.1:1"}
MARK = "deviceid"
"""The file that it knows a machine by, and writes as soon as it is imported."""


def reports(program: str, home: Path, *arguments: str, **environment: str) -> bool:
    """Whether onnxruntime was ready to report when a program ended."""
    kept = {name: value for name, value in os.environ.items() if name not in SILENT}
    kept |= {"XDG_CACHE_HOME": str(home), "HOME": str(home), **NOWHERE, **environment}
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, check=True, env=kept, capture_output=True)
    return any(home.rglob(MARK))


@pytest.fixture(scope="module", autouse=True)
def _reporting(tmp_path_factory: pytest.TempPathFactory) -> None:
    """There is something to be turned off."""
    if not reports("import onnxruntime", tmp_path_factory.mktemp("by itself")):
        pytest.skip("this onnxruntime reports nothing")


def test_of_the_package(tmp_path: Path) -> None:
    assert not reports("import lepton_compile, onnxruntime", tmp_path)


def test_of_a_loader_alone(tmp_path: Path) -> None:
    made = tiny.encoder(tmp_path / "made")
    program = "import sys; sys.path.insert(0, sys.argv[1]); import loader; loader.load(sys.argv[1])"
    assert not reports(program, tmp_path / "home", str(made.path))


def test_who_wants_it_has_it(tmp_path: Path) -> None:
    assert reports("import lepton_compile, onnxruntime", tmp_path, **{VARIABLE: "0"})
