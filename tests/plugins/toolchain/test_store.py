"""Compiled kernels on disk: what is kept comes back, what is damaged is made anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_plugins.attention.index import INDEX_FILE, INDEX_FORMAT
from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.compile import Compiled
from lepton_plugins.toolchain.store import (
    FORMAT,
    INDEX,
    cache_folder,
    cached,
    content_key,
    record,
    write_folder,
)

MADE = Compiled(
    entry="scale",
    architecture=90,
    target="sm_90",
    parameters=(("numbers", "*bf16"), ("count", "i32")),
    num_warps=4,
    shared=1024,
    registers=40,
    spill_bytes=0,
    ptx="ptx text\n",
    cubin=b"\x7fELF\x00\xff",
)
KEY = content_key(kernel="scale")


class Maker:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Compiled:
        self.calls += 1
        return MADE


def test_a_kernel_is_made_once(tmp_path: Path) -> None:
    make = Maker()
    assert cached(KEY, make, tmp_path) == MADE
    assert cached(KEY, make, tmp_path) == MADE
    assert make.calls == 1
    assert cached(content_key(kernel="other"), make, tmp_path) == MADE
    assert make.calls == 2
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_without_a_folder_nothing_is_kept() -> None:
    make = Maker()
    for _ in range(2):
        assert cached(KEY, make, None) == MADE
    assert make.calls == 2


@pytest.mark.parametrize("damage", ["", "0\n{}", "cut", "changed", "no more a kernel"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    make = Maker()
    cached(KEY, make, tmp_path)
    (path,) = (each for each in tmp_path.rglob("*") if each.is_file())
    whole = path.read_text("utf-8")
    texts = {"cut": whole[:-9], "changed": whole.replace("1024", "2048")}
    path.write_text(texts.get(damage, damage), "utf-8")
    assert cached(KEY, make, tmp_path) == MADE
    assert make.calls == 2
    assert path.read_text("utf-8") == whole, "and is whole again"


def test_a_key_is_of_the_content() -> None:
    assert content_key(a=1, b=[2]) == content_key(b=[2], a=1)
    assert len({content_key(a=1), content_key(a=2), content_key(b=1), content_key(a="1")}) == 4


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lepton-compile" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().relative_to(Path.home()).parts[0] == ".cache"


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's, which has a number alone."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert not cache_folder().exists()
    with pytest.raises(NotADirectoryError):
        cache_folder().mkdir(parents=True)


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_record_vouches_for_its_files() -> None:
    entry, files = record(MADE, "set/scale-90")
    assert files == {"set/scale-90.cubin": MADE.cubin, "set/scale-90.ptx": b"ptx text\n"}
    assert entry["cubin"]["size"] == 6
    assert entry["ptx"]["file"] == "set/scale-90.ptx"
    assert (entry["registers"], entry["spill_bytes"], entry["shared"]) == (40, 0, 1024)
    other, _ = record(replace(MADE, cubin=b"other"), "set/scale-90")
    assert other["cubin"]["sha256"] != entry["cubin"]["sha256"]
    assert other["ptx"] == entry["ptx"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    write_folder(folder, {"sets": {}}, {"old/file": b"1"})
    write_folder(folder, {"sets": {}}, {"new/file": b"2"})
    assert sorted(path.name for path in folder.iterdir()) == [INDEX, "new"]
    assert json.loads((folder / INDEX).read_text("utf-8")) == {"format": FORMAT, "sets": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["kernels"], "no scraps beside it"


def test_two_folders_of_the_same_have_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / name, {"x": 1, "a": 2}, {"f": b"1"})
    assert (tmp_path / "a" / INDEX).read_bytes() == (tmp_path / "b" / INDEX).read_bytes()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years", "utf-8")
    with pytest.raises(PluginError, match="holds something else"):
        write_folder(tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_written_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    write_folder(folder, {}, {"file": b"1"})
    with pytest.raises(TypeError):
        write_folder(folder, {"not JSON": object()}, {"file": b"2"})
    assert (folder / "file").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["kernels"]


def test_writer_and_reader_mean_the_same_file() -> None:
    assert (INDEX, FORMAT) == (INDEX_FILE, INDEX_FORMAT)
