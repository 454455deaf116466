"""``docs/serving.md``: each of its export commands and its Python are run, on tiny artifacts."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    program = blocks("python")[-1]
    # The tiny tokenizer knows few letters, so that it is asked for another text.
    exec(compile(program.replace("The capital of France is", "abc xyz"), "serving.md", "exec"), {})
    assert capsys.readouterr().out.startswith("abc xyz")


def test_a_server_streams_and_may_be_left(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(monkeypatch) as names:
        model, pieces = names["model"], names["pieces"]
        expected = model.generate("abc xyz", max_new_tokens=12)

        async def answer(leave_at: int = 99) -> list[str]:
            made = []
            async for piece in pieces("abc xyz", max_new_tokens=12):
                made.append(piece)
                if len(made) == leave_at:
                    break
            return made

        async def several() -> list[list[str]]:
            return await asyncio.gather(answer(), answer(1), answer())

        first, left, last = asyncio.run(several())
        assert "".join(first) == "".join(last) == expected.text
        assert left == first[:1]
        assert len(first) > 1
        assert model.generate("abc xyz", max_new_tokens=12).tokens == expected.tokens


def test_a_text_is_made_harmless(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(monkeypatch) as names:
        model, text = names["model"], "abc <eos><bos> x"
        special = {model.tokenizer.token_to_id(name) for name in ("<eos>", "<bos>")}
        assert special <= {*model.encode(text)}
        exec(blocks("python")[1], names)
        harmless = names["harmless"](text)
        assert harmless == "abc < eos>< bos> x"
        assert not special & {*model.tokenizer.encode(harmless, add_special_tokens=False).ids}
        assert names["harmless"]("abc xyz") == "abc xyz"
        model.tokenizer.encode_special_tokens = True
        assert not special & {*model.tokenizer.encode(text, add_special_tokens=False).ids}


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names of the document's server, with its model open."""
    names: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.delitem(sys.modules, "loader", raising=False)
        exec(blocks("python")[0], names)
        del sys.modules["loader"]
    with names["model"]:
        yield names


def test_inputs_named_in_the_text_are_those_of_the_configuration(artifacts: Path) -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    line = next(line for line in commands() if "writer" in line)
    assert main(shlex.split(line)[1:]) == 0
    config = (artifacts / "repository/writer/config.pbtxt").read_text()
    inputs = set(re.findall(r'^input {\n  name: "(\w+)"', config, re.MULTILINE))
    assert inputs <= set(re.findall(r'[`"](\w+)[`"]', TEXT))
