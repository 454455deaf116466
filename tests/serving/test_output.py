"""An export stands whole, or nothing of it does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_compile.errors import ArtifactError
from lepton_compile.serving.output import OutputFolder

# An export that stops while it writes.
PROGRAM = """
import sys, time
from lepton_compile.serving.output import OutputFolder

with OutputFolder(sys.argv[1]) as folder:
    folder.write("1/weights.bin", b"weights")
    print("half way", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "weights.bin"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def test_files_are_links_and_the_folder_appears_at_the_end(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out"
    with OutputFolder(output) as folder:
        folder.place(source, "1/model.bin")
        folder.write("config", "text")
        assert not output.exists()
    assert (output / "1/model.bin").samefile(source)
    assert (output / "config").read_text() == "text"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_copies_are_files_of_their_own(tmp_path: Path, source: Path) -> None:
    with OutputFolder(tmp_path / "out", copy=True) as folder:
        placed = folder.place(source, "weights.bin").name
    copied = tmp_path / "out" / placed
    assert copied.read_bytes() == b"weights"
    assert not copied.samefile(source)


def test_a_file_system_without_links_gets_copies(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with OutputFolder(tmp_path / "out") as folder:
        folder.place(source, "weights.bin")
    assert not (tmp_path / "out/weights.bin").samefile(source)


def test_a_link_is_followed(tmp_path: Path, source: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(source)
    with OutputFolder(tmp_path / "out") as folder:
        folder.place(link, "weights.bin")
    assert not (tmp_path / "out/weights.bin").is_symlink()
    assert (tmp_path / "out/weights.bin").read_bytes() == b"weights"


def test_an_error_leaves_nothing(tmp_path: Path, source: Path) -> None:
    def export() -> None:
        with OutputFolder(tmp_path / "out") as folder:
            folder.place(source, "weights.bin")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        export()
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert source.read_bytes() == b"weights"


@pytest.mark.parametrize("there", [[], ["a"], ["a/b"], ["a/b", "a/b/theirs"]])
def test_an_error_leaves_the_folders_above_as_they_were(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).mkdir(parents=True)
    before = {*tmp_path.rglob("*")}

    def export() -> None:
        with OutputFolder(tmp_path / "a/b/out"):
            assert (tmp_path / "a/b").is_dir()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        export()
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.parametrize("output", ["a/b/" + "x" * 250, "a/file/b/out"])
def test_folders_that_cannot_all_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    mkdir = Path.mkdir

    def refuse(path: Path, *rest: object, **options: object) -> None:
        if path.name == "file":
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ArtifactError), OutputFolder(tmp_path / output):
        pytest.fail("nothing is written")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_none_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        (left,) = tmp_path.iterdir()
        with OutputFolder(tmp_path / "out"):
            assert (left / "1/weights.bin").is_file(), "an export that is still at work lost its"
        process.send_signal(signal.SIGKILL)
    (tmp_path / "out").rmdir()
    assert left.exists()
    with OutputFolder(tmp_path / "out") as folder:
        folder.write("config", "text")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "config"]


def test_what_others_put_there_in_the_meantime_is_kept(tmp_path: Path) -> None:
    def export() -> None:
        with OutputFolder(tmp_path / "repo/one"):
            (tmp_path / "repo/two").mkdir()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        export()
    assert [p.name for p in tmp_path.rglob("*")] == ["repo", "two"]


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught, OutputFolder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.found == "No space left on device"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_stands_there_is_kept(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out"
    if kind == "folder":
        output.mkdir()
    elif kind == "file":
        output.write_text("mine")
    else:
        output.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="exists"), OutputFolder(output):
        pytest.fail("nothing is written")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_appears_in_the_meantime_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def export() -> None:
        with OutputFolder(output):
            output.mkdir()
            (output / "theirs").write_text("theirs")

    with pytest.raises(ArtifactError, match="exists"):
        export()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "theirs"]


def test_half_a_character_is_told_with_its_text(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match="cannot be written as UTF-8") as caught,
        OutputFolder(tmp_path / "out") as folder,
    ):
        folder.write("labels.txt", "good\n\ud800bad\n")
    assert caught.value.found == r"'good\n\ud800bad\n'"
    assert list(tmp_path.iterdir()) == []
