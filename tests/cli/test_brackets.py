"""Texts and paths that people or models give are shown as they are, brackets too: rich has styles
in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import RenderableType

from lepton_compile.cli import main
from lepton_compile.cli.accuracy_view import verify_tables
from lepton_compile.cli.artifact_view import artifact_tables, inspect_artifact
from lepton_compile.cli.output import show, table
from lepton_compile.cli.report_view import report_parts
from lepton_compile.cli.run import _answer, _embeddings, _entities, _fillings, _labels, _weights
from tests.runtime import tiny

Capture = pytest.CaptureFixture[str]
TEXTS = ("Close tag [/quote] in a post", "[red]x[/red]", "a\\[b] \\", "[/]", ":smile: [link=x]y")
ODD = "a[/b]"


def shown(capsys: Capture) -> str:
    """What was printed, as if no line had been broken."""
    return flat(capsys.readouterr().out)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(params=[200, 24])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal on which tables are tables, and one on which they are lists."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Answering:
    """What is asked of a model for questions."""

    def answer(self, question: str, context: str) -> dict[str, object]:
        return {"answer": context, "score": 0.5, "start": 0, "end": 1}


CALLS: dict[str, Callable[[str], None]] = {
    "labels": lambda t: _labels("text", [t], [{t: 0.5}], False),
    "answer": lambda t: _answer(Answering(), t, t, False),  # type: ignore[arg-type]
    "weights": lambda t: _weights([t], [{t: 0.5}], False),
    "fillings": lambda t: _fillings([t], [[[{"word": t, "score": 0.5, "text": t}]]], False),
    "entities": lambda t: _entities(
        [t], [[{"text": t, "label": t, "score": 0.5, "start": 0, "end": 1}]], False
    ),
    "embeddings": lambda t: _embeddings([t, "b"], np.ones((2, 3)), False),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", TEXTS)
def test_what_run_shows_of_a_text(call: str, text: str, columns: int, capsys: Capture) -> None:
    CALLS[call](text)
    told = shown(capsys).replace(" ", "")
    assert told.count(text.replace(" ", "")) >= (1 if call == "embeddings" else 2)


@pytest.mark.parametrize("text", TEXTS)
def test_titles_headings_and_cells(text: str, columns: int, capsys: Capture) -> None:
    show([table(text, (text, text), [(text, text)]), text])
    assert shown(capsys).replace(" ", "").count(text.replace(" ", "")) >= 5


def report(name: str) -> list[RenderableType]:
    """Parts of a report in which everything that a model or a recipe names is called ``name``."""
    choice = {"kinds": [], "measure": name, "measured": 1.0, "budget": 1.0, "estimated": 1.0}
    verify = {"precision": name, "tokens": 3, "sample": name, "target": name, "outputs": []}
    passes = [{"name": name, "fired": 1, "refusals": [{"reason": name, "node": name}]}]
    data = {
        "passes": passes,
        "choices": {name: {**choice, "bytes": 1, "tries": 1}},
        "remarks": [name],
    }
    return [*report_parts(data), *verify_tables(verify)]


def test_what_a_report_says(columns: int, capsys: Capture) -> None:
    show(report(ODD))
    told = shown(capsys)
    for line in (f"Note: {ODD}", f"{ODD} on the", f"engine for {ODD}"):
        assert line in told


def test_what_inspect_shows_of_a_folder(inside: Path, columns: int, capsys: Capture) -> None:
    made = tiny.encoder(inside / ODD)
    assert main(["inspect", ODD]) == 0
    assert shown(capsys).startswith(ODD)
    assert main(["inspect", f"{ODD}/engines/ort-cpu/model.onnx"]) == 0
    assert f"{ODD}/engines" in shown(capsys)
    data, _ = inspect_artifact(made.path)
    data["engines"] = {ODD: data["engines"]["ort-cpu"]}
    show(artifact_tables(data))
    assert f"Engine for {ODD}" in shown(capsys)


def test_a_damaged_report_is_told_of(inside: Path, capsys: Capture) -> None:
    made = tiny.encoder(inside / ODD)
    data, _ = inspect_artifact(made.path)
    show(artifact_tables({**data, "report": {"passes": [{ODD: ODD}]}}))
    assert "cannot be shown" in shown(capsys)


def test_commands_in_such_folders(
    encoder: Path, inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """One that was built ended in exit code 1."""
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(encoder.parent / "model", inside / "m[/m]")
    model = ["--model", "m[/m]", "--task", "feature-extraction"]
    fast = ["--no-verify", "--no-check"]
    assert main(["plan", *model, "-o", "k/q[/q]"]) == 0
    assert "k/q[/q]" in shown(capsys)
    for name in ("q[/q]", "[old]x"):
        assert main(["build", *model, "-o", f"k/{name}", *fast]) == 0
        said = shown(capsys)
        assert f"k/{name}" in said
        assert f"k/{name}/report.html" in said
    assert main(["rebuild", "k/q[/q]", "-o", "k/r[/r]"]) == 0
    assert "Kept in k/r[/r]" in shown(capsys).replace(f"{inside}/", "")
    assert main(["bench", "k/q[/q]", "--rounds", "1", "--no-eager"]) == 0
    assert "Kept in k/q[/q]/report.html" in shown(capsys)


def test_an_export_into_such_a_folder(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tiny.decoder(inside / "d[/d]")
    assert main(["export", "genai", "d[/d]", "-o", f"k/{ODD}"]) == 0
    assert f"/k/{ODD} file size" in shown(capsys)


def test_a_classifier_is_run_on_such_a_text(inside: Path, capsys: Capture) -> None:
    tiny.encoder(inside / "a", "text-classification")
    for text in TEXTS:
        assert main(["run", "a", "--text", text]) == 0
        assert flat(text) in shown(capsys)
