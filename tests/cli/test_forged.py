"""Commands on manifests that somebody edited and sealed again: one error that names the key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.cli import main
from tests.runtime import tiny
from tests.runtime.test_loader_forged import GONE, VALUES, edited, places

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.decoder(tmp_path_factory.mktemp("forged") / "artifact").path


def forge(artifact: Path, folder: Path, path: tuple[Any, ...], value: Any) -> Path:
    """A copy with another value in its manifest."""
    copy = Path(shutil.copytree(artifact, folder))
    rewrite(copy, json.loads((copy / "manifest.json").read_text("utf-8")), path, value)
    return copy


def rewrite(folder: Path, manifest: Any, path: tuple[Any, ...], value: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(edited(manifest, path, value)), "utf-8")


def test_no_edit_is_called_a_bug(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    codes = set()
    for path in places(manifest):
        for value in VALUES:
            rewrite(copy, manifest, path, value)
            codes.add(main(["inspect", str(copy)]))
            assert "this is a bug" not in capsys.readouterr().err, (path, value)
    assert codes == {0, 1}


def test_what_nobody_needs_may_be_missing(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = forge(artifact, tmp_path / "copy", ("model",), {})
    assert main(["inspect", str(copy)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["parameters", "-"] in lines
    assert ["model", "-"] in lines


@pytest.mark.parametrize(
    ("path", "value", "where", "found"),
    [
        (("model", "parameters"), "many", "manifest.model.parameters", "'many'"),
        (("model",), GONE, "", "no model"),
        (("engines", 0, "precision"), 4, "manifest.engines[0].precision", "4"),
        (("engines", 0, "precision"), GONE, "manifest.engines[0].precision", "None"),
        (("engines", 0, "files"), ["../x"], "manifest.files", "../x"),
        (("cache", "past"), "{strange}", "manifest.cache.past", "{strange}"),
        (("demands",), {"tokens": "all"}, "manifest.demands.tokens", "'all'"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "verify", "export triton", "export genai"])
def test_the_key_is_told(
    artifact: Path,
    tmp_path: Path,
    capsys: Capture,
    command: str,
    path: tuple[Any, ...],
    value: Any,
    where: str,
    found: str,
) -> None:
    copy = forge(artifact, tmp_path / "copy", path, value)
    to = ["-o", str(tmp_path / "out")] if "export" in command else []
    assert main([*command.split(), str(copy), *to, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["error"] == "ArtifactError"
    assert found in said["found"]
    assert where in (said["where"] or "")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy"]


def test_a_manifest_that_was_changed_is_not_intact(
    artifact: Path, tmp_path: Path, capsys: Capture
) -> None:
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    text = (copy / "manifest.json").read_text("utf-8")
    (copy / "manifest.json").write_text(text.replace("tiny", "mine"), "utf-8")
    assert main(["inspect", str(copy), "--json"]) == 1
    assert "its own digest" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.parametrize(
    ("report", "code"),
    [("[3]", 0), ('{"passes": 3}', 0), ('{"verify": {"tokens": 1}}', 0), ("[" * 99_999, 1)],
    ids=["a list", "passes", "verify", "deep"],
)
def test_a_report_of_another_form_is_passed_over(
    artifact: Path, tmp_path: Path, capsys: Capture, report: str, code: int
) -> None:
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    (copy / "report.json").write_text(report)
    assert main(["inspect", str(copy)]) == code
    captured = capsys.readouterr()
    assert ("cannot be shown" in captured.out) == (code == 0)
    assert ("this file is damaged" in captured.err) == (code == 1)


def test_verify_asks_for_the_source_that_no_manifest_names(
    artifact: Path, tmp_path: Path, capsys: Capture
) -> None:
    copy = forge(artifact, tmp_path / "copy", ("model",), {})
    assert main(["verify", str(copy), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert "does not say" in said["message"]
    assert "--model" in said["hint"]
