"""Progress: one plain line per stage off a terminal, a display on one, nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lepton_compile.cli.display import LiveProgress, PlainProgress, watching
from lepton_compile.progress import NullProgress, Progress


def work(progress: Progress) -> None:
    progress.stage("capture", "18 layers [2 kinds]")
    progress.step("layer 1", 1, 2)
    progress.stage("write")
    progress.step("writing model.layers.3.mlp.up_proj.weight", 17, 236)


def test_off_a_terminal_each_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
        work(progress)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["capture: 18 layers [2 kinds]", "write"]
    assert captured.out == ""


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=True) as progress:
        assert isinstance(progress, NullProgress)
        work(progress)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_tensor_and_the_count_are_shown() -> None:
    stream = io.StringIO()
    live = LiveProgress(Console(file=stream, force_terminal=True, width=120, color_system=None))
    with live.display:
        work(live)
        live.display.refresh()
        live.end()
    text = stream.getvalue()
    assert "writing model.layers.3.mlp.up_proj.weight" in text
    assert "17/236" in text
    assert "✓ capture" in text
    assert "18 layers [2 kinds]" in text
    assert "✓ write" in text
