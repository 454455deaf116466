"""``run --inputs``: arrays of every type, and the file that they go into."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lepton_compile.cli import main
from lepton_compile.cli.arrays import _extent
from tests.cli.onnx_files import worded_model

Capture = pytest.CaptureFixture[str]
WORDS = ["a", "größe", "[/b]"]


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What runs a model whose output is texts on an array."""
    folder = tmp_path_factory.mktemp("worded")
    built = ["--model", str(worded_model(folder)), "-o", str(folder / "artifact"), "-q"]
    assert main(["build", *built]) == 0
    np.savez(folder / "in.npz", ids=np.array([0, 2, 1]))
    return ["run", str(folder / "artifact"), "--inputs", str(folder / "in.npz")]


def test_texts_have_no_lowest_and_no_highest(worded: list[str], capsys: Capture) -> None:
    assert main(worded) == 0
    said = capsys.readouterr().out.splitlines()
    assert [row.split() for row in said if row.startswith(" word ")] == [
        ["word", "object", "(3)", "-"]
    ]
    assert any(row.split() == ["first", "bool", "(3)", "0", "..", "1"] for row in said)


def test_texts_are_written_without_pickles(
    worded: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert main([*worded, "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as found:
        assert found["word"].tolist() == WORDS


def test_the_file_has_the_name_that_was_asked_for(
    worded: list[str], tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "out.dat"
    output.write_text("what was there before")
    assert main([*worded, "-o", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(output)}
    assert [path.name for path in tmp_path.iterdir()] == ["out.dat"]
    with np.load(output) as found:
        assert found["first"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([1.5, -2.0], np.float16), "-2 .. 1.5"),
        (np.array([1.5, -2.0], ml_dtypes.bfloat16), "-2 .. 1.5"),
        (np.array([3, 4], np.int64), "3 .. 4"),
        (np.array([True, False]), "0 .. 1"),
        (np.array([1.0, np.nan]), "nan .. nan"),
        (np.array(["a"], object), "-"),
        (np.array(["a"]), "-"),
        (np.array([1j]), "-"),
        (np.zeros((0, 3)), "empty"),
    ],
)
def test_the_range_of_an_array(array: np.ndarray, said: str) -> None:
    assert _extent(array) == said
