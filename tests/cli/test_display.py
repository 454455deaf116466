"""Progress: plain lines for each stage off a terminal, a display on one, nothing when quiet."""

from __future__ import annotations

import io
import os
import pty
import re

import pytest
from rich.console import Console

from lepton_compile.cli.display import LiveProgress, PlainProgress, watching
from lepton_compile.progress import NullProgress, Progress


def work(progress: Progress) -> None:
    progress.stage("capture", "18 layers [2 kinds]")
    progress.step("layer 1", 1, 2)
    progress.stage("write")
    progress.step("writing model.layers.3.mlp.up_proj.weight", 17, 236)


def test_off_a_terminal_stages_begin_and_end_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
        work(progress)
    captured = capsys.readouterr()
    lines = [re.sub(r"[0-9.]+ s$", "N s", line) for line in captured.err.splitlines()]
    assert lines == [
        "capture: 18 layers [2 kinds]",
        "capture: done in N s",
        "write",
        "write: done in N s",
    ]
    assert captured.out == ""


def test_off_a_terminal_a_long_stage_says_where_it_is() -> None:
    stream = io.StringIO()
    work(PlainProgress(Console(file=stream, width=60), every=0.0))
    said = stream.getvalue().splitlines()
    assert "capture: layer 1 (1/2) after 0 s" in said
    assert "write: writing model.layers.3.mlp.up_proj.weight (17/236) after 0 s" in said


@pytest.mark.parametrize("asked", [{"FORCE_COLOR": "1"}, {"TERM": "dumb", "FORCE_COLOR": "1"}])
def test_what_cannot_write_over_a_line_gets_lines(
    asked: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with watching(quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
        work(progress)
    assert "\x1b" not in capsys.readouterr().err


def test_a_terminal_has_a_display_unless_it_keeps_every_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shown(**given: str) -> type[Progress]:
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w", encoding=given.pop("encoding", "utf-8")) as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            monkeypatch.setenv("TERM", given.get("TERM", "xterm"))
            with watching(quiet=False) as progress:
                found = type(progress)
        os.close(ours)
        return found

    assert shown() is LiveProgress
    assert shown(TERM="dumb") is PlainProgress
    assert shown(encoding="ascii") is PlainProgress


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


def test_a_display_takes_nothing_for_markup_or_for_a_picture() -> None:
    stream, name = io.StringIO(), "a[/b] :smile: [red]c"
    live = LiveProgress(Console(file=stream, force_terminal=True, width=120, color_system=None))
    with live.display:
        live.stage("resolve", name)
        live.step(f"2 {name}", 1, 2)
        live.display.refresh()
        live.end()
    assert f"2 {name}" in stream.getvalue()
    assert f" s  {name}\n" in stream.getvalue()


def test_a_long_detail_leaves_the_stage_its_room() -> None:
    stream = io.StringIO()
    live = LiveProgress(Console(file=stream, force_terminal=True, width=60, color_system=None))
    with live.display:
        live.stage("verify", "not done, no engine runs here: " + "a reason of many words " * 4)
        live.display.refresh()
        shown = stream.getvalue()
        live.end()
    last = shown.splitlines()[-1]
    assert "verify  " in last
    assert last.endswith("…")
