"""``docs/serving.md``: each of its export commands and its Python are run, on tiny artifacts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.cli import main
from tests.runtime import tiny
from tests.sources import REPOSITORY

TEXT = (REPOSITORY / "docs" / "serving.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    return list(found)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("lepton-compile ")]


@pytest.fixture
def artifacts(
    tmp_path: Path, encoder: Artifact, rtx_encoder: Artifact, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the artifacts that the document speaks of."""
    (tmp_path / "out").mkdir()
    tiny.decoder(tmp_path / "out/gemma", tokenizer="bytes")
    (tmp_path / "out/minilm").symlink_to(encoder.path)
    (tmp_path / "out/minilm-rtx").symlink_to(rtx_encoder.path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_does_what_it_says(artifacts: Path) -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    assert len(commands()) == 4
    for line in commands():
        assert main(shlex.split(line)[1:]) == 0, line
    assert {p.name for p in (artifacts / "served").iterdir()} == {"gemma", "minilm-rtx"}
    assert {p.name for p in (artifacts / "repository").iterdir()} == {"minilm", "writer"}


def test_the_python_runs(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime_genai")
    assert main(shlex.split(commands()[0])[1:]) == 0
    capsys.readouterr()
    (program,) = blocks("python")
    # The tiny tokenizer knows few letters, so that it is asked for another text.
    exec(compile(program.replace("The capital of France is", "abc xyz"), "serving.md", "exec"), {})
    assert capsys.readouterr().out.startswith("abc xyz")


def test_inputs_named_in_the_text_are_those_of_the_configuration(artifacts: Path) -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    line = next(line for line in commands() if "writer" in line)
    assert main(shlex.split(line)[1:]) == 0
    config = (artifacts / "repository/writer/config.pbtxt").read_text()
    inputs = set(re.findall(r'^input {\n  name: "(\w+)"', config, re.MULTILINE))
    assert inputs <= set(re.findall(r'[`"](\w+)[`"]', TEXT))
