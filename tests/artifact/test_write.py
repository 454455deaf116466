"""Writing: whole or not there, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_compile.artifact import Artifact, ArtifactWriter, open_artifact, sibling
from lepton_compile.artifact import write as write_module
from lepton_compile.artifact.disk import elsewhere
from lepton_compile.errors import ArtifactError
from tests.artifact.test_manifest import ENGINE, MANIFEST


@pytest.mark.parametrize(
    ("number", "todo"),
    [(errno.ENOSPC, "free some space"), (errno.EFBIG, "ulimit -f"), (errno.EACCES, "write else")],
)
def test_what_to_do_about_a_disk(number: int, todo: str) -> None:
    told = elsewhere(OSError(number, os.strerror(number)))
    assert told.startswith(todo) or todo in told.split(", or ")[0]
    assert told.count("write elsewhere") == 1


# A build that stops, or fills the disk, while it writes.
PROGRAM = """
import resource, signal, sys, time
from pathlib import Path
from lepton_compile.artifact import ArtifactWriter
from lepton_compile.errors import ArtifactError

if sys.argv[2] == "fill":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with ArtifactWriter(Path(sys.argv[1])) as writer:
        with (writer.folder / "weights.bin").open("wb") as file:
            for _ in range(4):
                file.write(bytes(1 << 19))
                file.flush()
        print("half way", flush=True)
        time.sleep(60)
except ArtifactError as error:
    print(error)
"""


INSIDE = {**ENGINE, "model": "engines/m.onnx", "files": ["engines/m.onnx"]}


def build(output: Path, text: str = "x", **options: bool) -> None:
    """A small artifact."""
    with ArtifactWriter(output, **options) as writer:
        (writer.folder / "engines").mkdir()
        (writer.folder / "engines" / "m.onnx").write_text(text)
        (writer.folder / "report.json").write_text("{}")
        writer.seal(replace(MANIFEST, engines=(INSIDE,)))
        writer.publish()


def attempt(output: Path, step: Callable[[ArtifactWriter], object], **options: bool) -> None:
    """A build whose one step may fail."""
    with ArtifactWriter(output, **options) as writer:
        writer.seal(MANIFEST)
        step(writer)
        writer.publish()


def test_what_is_published_is_whole(tmp_path: Path) -> None:
    build(tmp_path / "deep" / "out")
    artifact = open_artifact(tmp_path / "deep" / "out")
    assert set(artifact.manifest.files) == {"engines/m.onnx"}
    assert artifact.size() == 1
    assert repr(artifact) == f"Artifact(path={artifact.path!r})"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_another_manifest_of_the_same_files_reads_none_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ArtifactWriter(tmp_path / "out") as writer:
        (writer.folder / "m.onnx").write_text("x")
        first = writer.seal(MANIFEST)
        monkeypatch.setattr(write_module, "file_entry", None)
        writer.reseal(replace(MANIFEST, task="another"))
        monkeypatch.undo()
        writer.publish()
    found = open_artifact(tmp_path / "out").manifest
    assert (found.task, found.files) == ("another", first.manifest.files)


def test_nothing_stands_at_the_output_before_the_end(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "out") as writer:
        (writer.folder / "m.onnx").write_text("x")
        sealed = writer.seal(MANIFEST)
        assert open_artifact(sealed.path).manifest == sealed.manifest
        assert not (tmp_path / "out").exists()
        assert writer.publish().path == tmp_path / "out"


def test_all_is_on_the_disk_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that fails right after a build has the whole artifact, or none."""
    flushed: set[int] = set()
    monkeypatch.setattr(
        write_module.os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino)
    )
    build(tmp_path / "out")
    assert flushed == {path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*"))}


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), KeyboardInterrupt(), PermissionError(errno.EACCES, "broken")]
)
def test_an_error_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(_: ArtifactWriter) -> None:
        raise error

    with pytest.raises(type(error)):
        attempt(tmp_path / "out", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [[], ["a"], ["a/b"], ["a/b", "a/b/theirs"]])
def test_an_error_leaves_the_folders_above_as_they_were(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).mkdir(parents=True)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(ZeroDivisionError):
        attempt(tmp_path / "a/b/out", lambda _: 1 / 0)
    assert {*tmp_path.rglob("*")} == before
    build(tmp_path / "a/b/out")
    open_artifact(tmp_path / "a/b/out")


def test_what_others_put_there_in_the_meantime_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="exists"):
        attempt(tmp_path / "a/b/out", lambda _: (tmp_path / "a/b/out/theirs").mkdir(parents=True))
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b", "out", "theirs"]


def test_leaving_without_publishing_leaves_nothing(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "out") as writer:
        writer.seal(MANIFEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_cannot_be_made_changes_nothing(tmp_path: Path, there: bool) -> None:
    """A name that has room for no mark: what it is made in is named after it."""
    output = tmp_path / "above" / ("x" * 250)
    if there:
        build(tmp_path / "old")
        output.parent.mkdir()
        (tmp_path / "old").rename(output)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(ArtifactError, match="could not be written"):
        build(output, overwrite=True)
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.parametrize("there", [False, True])
def test_what_cannot_be_moved_to_its_place_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        build(tmp_path / "out", "old")
    before, rename = {*tmp_path.rglob("*")}, Path.rename

    def refuse_new(path: Path, target: Path) -> Path:
        if target == tmp_path / "out" and not path.name.endswith("-old"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(ArtifactError, match="could not be written") as caught:
        build(tmp_path / "out", "new", overwrite=True)
    assert "Permission denied" in str(caught.value.found)
    assert {*tmp_path.rglob("*")} == before
    assert not there or (tmp_path / "out/engines/m.onnx").read_text() == "old"


@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_never_replaced(tmp_path: Path, there: bool) -> None:
    if there:
        build(tmp_path / "elsewhere")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    before = {*tmp_path.rglob("*")}
    with pytest.raises(ArtifactError, match="the output folder exists") as caught:
        build(tmp_path / "out", overwrite=True)
    assert caught.value.hint == "choose another with -o; it is a link, so it is never replaced"
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_artifact_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="the output folder exists") as caught:
        build(tmp_path / "out", overwrite=overwrite)
    assert "it holds no artifact" in str(caught.value)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_artifact_is_replaced_only_when_asked(tmp_path: Path) -> None:
    build(tmp_path / "out", "old")
    with (
        pytest.raises(ArtifactError, match="the output folder exists"),
        ArtifactWriter(tmp_path / "out"),
    ):
        pytest.fail("a build began that can have no place")
    assert (tmp_path / "out/engines/m.onnx").read_text() == "old"
    build(tmp_path / "out", "new", overwrite=True)
    open_artifact(tmp_path / "out")
    assert (tmp_path / "out/engines/m.onnx").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_output_that_appears_during_the_build_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="exists"):
        attempt(tmp_path / "out", lambda _: (tmp_path / "out").mkdir())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failed_overwrite_keeps_the_old_artifact(tmp_path: Path) -> None:
    build(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError):
        attempt(tmp_path / "out", lambda _: 1 / 0, overwrite=True)
    open_artifact(tmp_path / "out")


def test_a_killed_build_leaves_no_artifact_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), "sleep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        (left,) = tmp_path.iterdir()
        assert (left / "weights.bin").stat().st_size == 2 << 20
        with ArtifactWriter(tmp_path / "out"):
            assert left.exists(), "a build that is still at work lost its folder"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert left.exists()
    build(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("said", [True, False])
def test_numbers_of_processes_say_nothing_where_a_disk_has_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    """In another container a build that goes on has a number that nobody has here, and one that was
    killed has, such as 1, that of somebody."""
    monkeypatch.setattr(sibling, "_alive", lambda _: said)
    with ArtifactWriter(tmp_path / "out") as going_on:
        (going_on.folder / "weights.bin").touch()
        build(tmp_path / "out")
        assert (going_on.folder / "weights.bin").is_file()
    (tmp_path / ".out.partial-held-00").mkdir()
    build(tmp_path / "out", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> int:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(sibling, "locked", refuse)
    (tmp_path / ".out.partial-held-00").mkdir()  # from where the disk has some
    with ArtifactWriter(tmp_path / "out") as going_on:
        (tmp_path / f".out.partial-{dead_process()}-00").mkdir()
        build(tmp_path / "out")
        assert going_on.folder.name.startswith(f".out.partial-{os.getpid()}-")
        assert {*tmp_path.iterdir()} == {
            *(going_on.folder, tmp_path / ".out.partial-held-00", tmp_path / "out")
        }


def test_a_build_between_its_last_renames_is_left_alone(tmp_path: Path) -> None:
    build(tmp_path / "out", "old")
    with ArtifactWriter(tmp_path / "out", overwrite=True) as going_on:
        aside = (tmp_path / "out").rename(going_on.folder.with_name(f"{going_on.folder.name}-old"))
        with ArtifactWriter(tmp_path / "out"):
            assert aside.is_dir()
            assert not (tmp_path / "out").exists()
    with ArtifactWriter(tmp_path / "out", overwrite=True):  # now it is gone, and left that behind
        assert (tmp_path / "out/engines/m.onnx").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_no_file_stays_open(tmp_path: Path) -> None:
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("open files are told by /proc")
    before = len(list(fds.iterdir()))
    kept = []
    for number in range(3):
        with ArtifactWriter(tmp_path / "out") as writer:
            kept.append(writer)
        build(tmp_path / str(number))
    assert len(list(fds.iterdir())) == before


def dead_process() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_build_killed_between_its_last_renames_loses_nothing(tmp_path: Path) -> None:
    build(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / f".out.partial-{dead_process()}-00-old")
    with pytest.raises(ArtifactError, match="exists"):
        build(tmp_path / "out", "new")
    assert (tmp_path / "out/engines/m.onnx").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_only_folders_of_the_same_output_are_cleaned(tmp_path: Path) -> None:
    others = [".other.partial-1-00", f".out.partial-{os.getpid()}-00", ".out.partial-x", "out2"]
    for name in others:
        (tmp_path / name).mkdir()
    build(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "out"])


def test_a_number_that_no_process_has_is_of_one_that_is_gone(tmp_path: Path) -> None:
    for number in ("9" * 30, "9" * 200, str(1 << 31)):
        (tmp_path / f".out.partial-{number}-00").mkdir()
    build(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_output_with_such_a_name_is_told_apart(tmp_path: Path) -> None:
    gone, alive = dead_process(), os.getpid()
    name = f"out.partial-{gone}"
    others = [f".{name}.partial-{alive}-00", f".{name}-00.partial-{alive}-00", ".out.partial-²-00"]
    for other in others:
        (tmp_path / other).mkdir()
    build(tmp_path / "out")
    build(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "out", name])
    (tmp_path / f".{name}.partial-{gone}-00").mkdir()
    build(tmp_path / name, overwrite=True)
    assert not (tmp_path / f".{name}.partial-{gone}-00").exists()


def test_a_full_disk_gives_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), "fill"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the artifact could not be written" in done.stdout
    assert "nothing was left behind" in done.stdout
    assert str(tmp_path / "out") in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_at_the_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(write_module.os, "fsync", fsync)
    with pytest.raises(ArtifactError, match="could not be written"):
        build(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="could not be written") as caught:
        build(tmp_path / "file" / "out")
    assert str(caught.value.found).endswith(str(tmp_path / "file"))
    assert "space" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("{", "cannot be read"), ("[1]", "no report")]
)
def test_a_report_that_is_not_there_or_damaged(
    text: str | None, message: str, tmp_path: Path
) -> None:
    artifact = Artifact(tmp_path, MANIFEST)
    (tmp_path / "report.json").write_text('{"gates": []}')
    assert artifact.report() == {"gates": []}
    (tmp_path / "report.json").unlink()
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(ArtifactError, match=message) as caught:
        artifact.report()
    assert caught.value.where == str(tmp_path / "report.json")
