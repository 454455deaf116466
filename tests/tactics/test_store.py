"""Measurements on disk: kept for one machine, and damage that costs no build."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.tactics.machine import Machine
from lepton_compile.tactics.store import FORMAT, Store, tactics_folder
from lepton_plugins.toolchain.store import cache_folder
from tests.tactics.measured import MACHINE, measured

ONE = {"640 to 640": measured()}


def _file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _changed(folder: Path, **changes: Any) -> None:
    path = _file(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    whole = measured(failed={"dynamic": "no such op"}, spread=1.2)
    Store(folder, MACHINE).add({"a": whole})
    assert Store(folder, MACHINE).read() == {"a": whole}
    assert json.loads(_file(folder).read_text())["machine"]["processor"] == "Processor 9000"


def test_more_is_added_to_what_is_there(tmp_path: Path) -> None:
    Store(tmp_path, MACHINE).add({"a": measured(), "b": measured()})
    Store(tmp_path, MACHINE).add({"b": measured(spread=1.3), "c": measured()})
    read = Store(tmp_path, MACHINE).read()
    assert (list(read), read["b"].spread) == (["a", "b", "c"], 1.3)


@pytest.mark.parametrize(
    "other",
    [
        {"processor": "Processor 9001"},
        {"features": ("avx2", "fma", "avx512_vnni")},
        {"onnxruntime": "1.33.0"},
        {"kernels": "cd" * 32},
    ],
)
def test_another_machine_measures_for_itself(tmp_path: Path, other: dict[str, Any]) -> None:
    Store(tmp_path, MACHINE).add(ONE)
    store = Store(tmp_path, replace(MACHINE, **other))
    assert store.read() == {}
    store.add({"b": measured()})
    assert len(list(tmp_path.iterdir())) == 2
    assert Store(tmp_path, MACHINE).read() == ONE


def test_a_file_of_another_machine_in_its_place_is_not_read(tmp_path: Path) -> None:
    other = replace(MACHINE, onnxruntime="1.33.0")
    Store(tmp_path / "a", MACHINE).add(ONE)
    Store(tmp_path / "b", other).add(ONE)
    shutil.copy(_file(tmp_path / "b"), _file(tmp_path / "a"))
    assert Store(tmp_path / "a", MACHINE).read() == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"format": 1}',
    ],
)
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path, MACHINE)
    store.add(ONE)
    _file(tmp_path).write_bytes(content)
    assert store.read() == {}
    store.add(ONE)
    assert store.read() == ONE


@pytest.mark.parametrize(
    "changes",
    [
        {"format": FORMAT + 1},
        {"machine": None},
        {"layers": None},
        {"layers": []},
        {"layers": {"a": None}},
        {"layers": {"a": {"usual": "native", "more": 1}}},
    ],
)
def test_what_is_no_measurement_is_passed_over(tmp_path: Path, changes: dict[str, Any]) -> None:
    Store(tmp_path, MACHINE).add(ONE)
    _changed(tmp_path, **changes)
    assert Store(tmp_path, MACHINE).read() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"usual": "fastest"},
        {"usual": []},
        {"spread": "high"},
        {"spread": 0},
        {"spread": float("inf")},
        {"seconds": {"native": {"1": -1.0}, "nbits": {}}},
        {"seconds": {"native": {"one": 1.0}, "nbits": {}}},
        {"seconds": {"native": {"1": float("nan")}, "nbits": {}}},
        {"seconds": {"native": {"1": 10**400}, "nbits": {"1": 1.0}}},
        {"seconds": {"native": {"1": float("inf")}, "nbits": {"1": 1.0}}},
        {"seconds": {"native": {}}},
        {"errors": {"native": None, "nbits": 0.1}},
        {"errors": {"native": float("nan"), "nbits": 0.1}},
        {"bytes": {"native": 0, "nbits": 1}},
        {"bytes": {"native": float("inf"), "nbits": 1}},
        {"failed": ["native"]},
        {"failed": {"fastest": "why"}},
    ],
)
def test_a_measurement_that_makes_no_sense_is_passed_over(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    Store(tmp_path, MACHINE).add({"a": measured(), "b": measured()})
    document = json.loads(_file(tmp_path).read_text())
    document["layers"]["a"] |= change
    _changed(tmp_path, layers=document["layers"])
    assert Store(tmp_path, MACHINE).read() == {"b": measured()}


def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for store in (Store(tmp_path / "file", MACHINE), Store(None, MACHINE)):
        store.add(ONE)
        assert store.read() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_plan_reads_what_the_last_build_here_wrote(tmp_path: Path) -> None:
    def build(kernels: str, age: int, **here: Any) -> None:
        machine = replace(MACHINE, kernels=kernels, **here)
        before = set(tmp_path.iterdir())
        Store(tmp_path, machine).add({kernels: measured()})
        (made,) = set(tmp_path.iterdir()) - before
        os.utime(made, (1000 - age, 1000 - age))

    build("old", age=9)
    build("last", age=5)
    build("elsewhere", age=1, processor="Processor 9001")
    here: Machine = replace(MACHINE, kernels="")
    assert list(Store.latest(tmp_path, here).read()) == ["last"]
    assert Store.latest(tmp_path / "nothing", here).read() == {}
    assert Store.latest(tmp_path, replace(here, processor="Processor 9002")).read() == {}


@pytest.mark.parametrize("machine", ["text", 3, ["kernels"], None])
def test_a_plan_passes_over_a_file_that_names_no_machine(tmp_path: Path, machine: object) -> None:
    Store(tmp_path, replace(MACHINE, kernels="good")).add(ONE)
    good = _file(tmp_path)
    bad = tmp_path / "newer.json"
    bad.write_text(json.dumps({**json.loads(good.read_text()), "machine": machine}))
    os.utime(good, (1000, 1000))
    assert Store.latest(tmp_path, replace(MACHINE, kernels="")).read() == ONE


def test_it_stands_beside_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tactics_folder().parent == cache_folder().parent == tmp_path / "lepton-compile"
