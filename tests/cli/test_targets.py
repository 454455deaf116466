"""``targets`` as a table for people and a list for machines."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.text import Text

from lepton_compile.cli import main
from lepton_compile.cli.targets import Tool, target_lines
from lepton_compile.engines import TARGETS, probe
from lepton_compile.engines.probe import TargetState

STATES = [
    TargetState("ort-cpu", True, True, "1.32.0"),
    TargetState(
        "trt", False, False, None, "NVIDIA L4 (8.9)", "tensorrt is missing", "pip install x"
    ),
]


def test_every_target_has_a_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {state["name"]: state for state in found if state["kind"] == "target"}
    assert tuple(states) == TARGETS
    for state in states.values():
        assert state.keys() == {
            *("kind", "name", "builds", "runs", "version", "device", "reason", "install")
        }
        assert (state["builds"] and state["runs"]) == (not state["reason"])


def test_the_table_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["targets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if "pip " in line]
    assert max(len(line) for line in lines if line not in commands) <= 80
    assert all(any(line.lstrip().startswith(name) for line in lines) for name in TARGETS)


def test_what_is_missing_comes_with_its_command() -> None:
    parts = [part.plain for part in target_lines(STATES) if isinstance(part, Text)]
    assert parts[0] == "GPU: NVIDIA L4 (8.9)"
    assert parts[-1].split() == ["trt", "pip", "install", "x"]


def test_a_tool_has_its_version_or_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--json"]) == 0
    found = [one for one in json.loads(capsys.readouterr().out) if one["kind"] == "tool"]
    versions = {one["package"]: one["version"] for one in found}
    assert versions.keys() == {"triton", "tritonclient", "onnxruntime-genai"}
    assert versions["triton"] == probe.installed("triton")
    absent = Tool("a thing", "nowhere", "pip install nowhere")
    parts = [part.plain for part in target_lines(STATES[:1], [absent]) if isinstance(part, Text)]
    assert parts[-1].split() == ["nowhere", "pip", "install", "nowhere"]
    present = replace(absent, version="1.0")
    parts = [part.plain for part in target_lines(STATES[:1], [present]) if isinstance(part, Text)]
    assert len(parts) == 1


def test_nothing_to_install_says_nothing() -> None:
    parts = [part.plain for part in target_lines(STATES[:1]) if isinstance(part, Text)]
    assert len(parts) == 1
    assert parts[0].startswith("GPU: none")
