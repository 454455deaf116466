"""What callers from Python hand over in another type than is said: one error, before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.arguments import LARGEST
from lepton_compile.artifact import open_artifact, read_manifest
from lepton_compile.cli import main
from lepton_compile.errors import LeptonError, RecipeError, UsageError
from lepton_compile.runtime import LoaderError
from lepton_compile.serving import export_epcontext, export_genai, export_triton
from tests.runtime import tiny
from tests.small import llama

Call = Callable[[Any], Any]

NO_PATHS = (5, 2.5, b"x", [], object(), "", "nul\0", "long" * 2000, Path("long" * 2000), "\ud800")
OF_PATHS: dict[str, Call] = {
    "build": lc.build,
    "plan": lc.plan,
    "open_artifact": open_artifact,
    "read_manifest": read_manifest,
    "export_genai": lambda path: export_genai(path, "out"),
    "export_triton": lambda path: export_triton(path, "out"),
    "export_epcontext": lambda path: export_epcontext(path, "out"),
    "output": lambda path: lc.build(model="nothing", output=path),
    "output of a plan": lambda path: lc.plan(model="nothing", output=path),
}


@pytest.mark.parametrize("name", OF_PATHS)
def test_what_is_no_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in NO_PATHS:
        with pytest.raises(UsageError, match="is no path") as caught:
            OF_PATHS[name](value)
        assert caught.value.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", [lc.build, lc.plan])
def test_an_unknown_keyword_names_the_nearest_argument_or_key(call: Any) -> None:
    """It was told as a --set, which nobody had typed, and without the function's own arguments."""
    with pytest.raises(RecipeError, match="Unknown key 'quantise'") as caught:
        call("minilm/ort-cpu-int8", quantise="int8")
    assert caught.value.where == f"{call.__name__}(quantise=...)"
    assert caught.value.hint == "Did you mean 'quantize'?"
    assert {"progress", "overrides", "gates"} <= {*caught.value.available}
    with pytest.raises(RecipeError) as caught:
        call("minilm/ort-cpu-int8", override={})
    assert caught.value.hint == "Did you mean 'overrides'?"


LOST = ("long" * 2000, "~nobody-has-this-name/model", "\ud800")


@pytest.mark.parametrize("key", ["model", "adapter"])
def test_places_that_no_system_has(key: str, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    for value in ("nul\0", *LOST):
        for recipe in (None, {"target": "ort-cpu"}):
            given: dict[str, Any] = {"model": str(tmp_path), key: value}
            with pytest.raises(UsageError, match=key):
                lc.plan(recipe, **given)


def test_a_folder_to_load_that_no_system_has(tmp_path: Path) -> None:
    artifact = tiny.decoder(tmp_path / "artifact").path
    spec = importlib.util.spec_from_file_location("carried", artifact / "loader.py")
    assert spec is not None
    assert spec.loader is not None
    carried = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(carried)
    for value in ("nul\0", "a\0b", *LOST, 5, None, b"x", ""):
        with pytest.raises(LoaderError):
            lc.load(value)
        with pytest.raises(carried.LoaderError):
            carried.load(value)


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "@"),
        ("verify", "@"),
        ("bench", "@"),
        ("run", "@", "--text", "x"),
        ("run", "artifact", "--inputs", "@"),
        ("run", "artifact", "--inputs", "x.npz", "-o", "@"),
        ("export", "genai", "@", "-o", "x"),
        ("export", "genai", "artifact", "-o", "@"),
        ("export", "triton", "artifact", "-o", "@"),
        ("export", "epcontext", "artifact", "-o", "@"),
        ("plan", "@"),
        ("plan", "--model", "@"),
        ("plan", "--model", "model", "--adapter", "@"),
        ("build", "--model", "artifact", "-o", "@"),
    ],
    ids=" ".join,
)
def test_what_is_typed_and_no_path(
    command: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny.decoder(tmp_path / "artifact")
    llama().save_pretrained(tmp_path / "model")
    (tmp_path / "x.npz").touch()
    monkeypatch.chdir(tmp_path)
    for value in ("nul\0", "\ud800", ""):
        assert main([value if part == "@" else part for part in command]) == 2, value
        assert "bug" not in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["artifact", "model", "x.npz"]


OF_BUILD: dict[str, tuple[Any, ...]] = {
    "check": ("false", 1, None),
    "verify": ("false", 0, None, [1]),
    "overwrite": ("no", 1, None),
    "progress": (5, "x", [], object()),
    "overrides": ([1], "a=b", 5, {1: 2}, {None: 1}),
}


@pytest.mark.parametrize("name", OF_BUILD)
def test_what_a_build_does_not_take(name: str) -> None:
    for value in OF_BUILD[name]:
        with pytest.raises(UsageError, match=name) as caught:
            lc.build(model="nothing", **{name: value})
        assert caught.value.found == repr(value)
        if name != "overwrite":
            with pytest.raises(UsageError, match=name):
                lc.plan(model="nothing", **{name: value})


def test_what_an_export_does_not_take(tmp_path: Path) -> None:
    artifact = tiny.decoder(tmp_path / "artifact").path
    wrong: dict[str, tuple[Any, ...]] = {
        "instances": (0, -1, LARGEST + 1, 1.5, "2", True, None),
        "version": (0, LARGEST + 1, "1"),
        "copy": ("no", 1),
        "name": (5, ["x"]),
    }
    for key, values in wrong.items():
        for value in values:
            with pytest.raises(LeptonError, match=key):
                export_triton(artifact, tmp_path / "repository", **{key: value})
    for place in NO_PATHS:
        with pytest.raises(UsageError, match="repository is no path"):
            export_triton(artifact, place)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="output is no path"):
            export_genai(artifact, place)  # type: ignore[arg-type]
    assert [each.name for each in tmp_path.iterdir()] == ["artifact"]
