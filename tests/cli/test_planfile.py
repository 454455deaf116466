"""Plans from outside: alone, and as engines of an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.cli import main
from lepton_compile.cli.planfile import NOT_PARSED, is_plan, summarize_plan
from tests.serving.artifacts import encoder_with

Capture = pytest.CaptureFixture[str]


def header(version: tuple[int, ...] = (1, 7, 1, 116), word: int = 0x4A) -> bytes:
    """First bytes of a plan for 8.0 and 8.9, and beyond."""
    data = bytearray(40)
    data[:4], data[24:28], data[32] = b"vtrt", bytes(version), word
    return bytes(data)


def test_version_and_hardware_are_read_from_the_header(tmp_path: Path, capsys: Capture) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(header() + bytes(1000))
    assert main(["inspect", str(plan), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["bytes"] == 1040
    assert found["version"] == "1.7.1.116"
    assert found["compute_capabilities"] == ["8.0", "8.9", "portable"]
    assert found["layers"] == "not parsed: needs a driver"
    assert found["header"].startswith("76747274 ")


@pytest.mark.parametrize("content", [b"", b"ftrt", b"ftrt" + bytes(500)])
def test_a_plan_of_another_kind_is_shown_by_its_size(tmp_path: Path, content: bytes) -> None:
    plan = tmp_path / "model.engine"
    plan.write_bytes(content)
    found = summarize_plan(plan)
    assert (found.bytes, found.version, found.compute_capabilities) == (len(content), None, ())
    assert found.layers == NOT_PARSED


@pytest.mark.parametrize("first", [b"f", b"p", b"v"])
def test_plans_of_all_kinds_are_inspected(tmp_path: Path, capsys: Capture, first: bytes) -> None:
    (tmp_path / "model.engine").write_bytes(first + b"trt" + bytes(500))
    assert main(["inspect", str(tmp_path / "model.engine"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 504


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (bytes(range(100)), "100 bytes that begin with 00 01 02 03 04 05 06 07"),
        (b"ftrt", "4 bytes that begin with 66 74 72 74"),
        (header()[:39], "39 bytes that begin with 76 74 72 74 00 00 00 00"),
    ],
)
@pytest.mark.parametrize("name", ["model.plan", "model.engine", "model.trt"])
def test_what_is_no_plan_is_refused(
    tmp_path: Path, capsys: Capture, name: str, content: bytes, found: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["inspect", str(path), "--json"]) == 1
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["message"] == "this file is not a TensorRT plan"
    assert (said["where"], said["found"]) == (str(path), found)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("a.plan", b"", True), ("a.bin", header(), True), ("a.onnx", b"\x08\x0a", False)],
)
def test_a_plan_is_known_by_name_or_content(
    tmp_path: Path, name: str, content: bytes, expected: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_plan(tmp_path / name) is expected


def test_an_artifact_with_two_engines(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = {"input_ids": [1, 16]}
    profile = {"name": "all", "min": shapes, "opt": shapes, "max": {"input_ids": [64, 16]}}
    forms = {"layers": 6, "forms": {"encoder": 6}}
    encoder_with(tmp_path / "two", "trt-rtx", profiles=[profile], attention=forms)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["inspect", "two"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    engines = {line.split()[0]: line for line in lines if "fp16" in line or "fp32" in line}
    assert "never executed" in engines["trt-rtx"]
    assert " yes " in engines["ort-cpu"]
    assert any(NOT_PARSED in line for line in lines)
    assert any("64x16" in line for line in lines)
    assert any("6 layers: 6 encoder" in line for line in lines)
    assert main(["inspect", "two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["engines"]
    assert found["trt-rtx"]["layers"] == NOT_PARSED
    assert found["ort-cpu"]["ops"]
