"""``docs/ci.md``: each of its commands is run, in order, with a small model."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from lepton_compile.cli import main
from tests.small import bert, byte_tokenizer, saved
from tests.sources import REPOSITORY

TEXT = (REPOSITORY / "docs" / "ci.md").read_text("utf-8")


def commands() -> list[list[str]]:
    """Of all blocks of a shell, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line]
    return [shlex.split(line, comments=True) for line in lines]


def test_a_job_does_what_the_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved("BertModel", bert(vocab_size=260), tmp_path / "model")
    byte_tokenizer(folder)
    recipe = "model: ./model\ntask: feature-extraction\nquantize: int8\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    plan, build, copy, rebuild, verify = commands()
    assert main(plan[1:]) == 0
    assert json.loads(capsys.readouterr().out)["peak_memory_bytes"] > 0
    assert main(build[1:]) == 0
    first = (tmp_path / "out/model/manifest.json").read_bytes()
    assert copy == ["cp", "out/model/manifest.json", "recipe.lock.json"]
    shutil.move(tmp_path / "out/model/manifest.json", tmp_path / "recipe.lock.json")
    shutil.rmtree(tmp_path / "out")  # the runner is another
    assert main(rebuild[1:]) == 0
    assert (tmp_path / "out/model/manifest.json").read_bytes() == first
    capsys.readouterr()
    assert main(verify[1:]) == 0
    assert all(gate["passed"] for gate in json.loads(capsys.readouterr().out)["gates"])
