"""What loaders refuse inside the compiler is an error of ours that names the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.api.demands import recorded_demands
from lepton_compile.api.verification import verify_engines
from lepton_compile.cli import main
from lepton_compile.errors import EngineError
from lepton_compile.export import resolve
from tests.small import bert, saved

MODEL = "engines/ort-cpu/model.onnx"


def _narrow(folder: Path, manifest: dict[str, Any]) -> None:
    """The loader takes the ids 0 and 1 alone."""
    manifest["ranges"]["input_ids"] = [0, 1]


def _broken(folder: Path, manifest: dict[str, Any]) -> None:
    """The engine is no model, under a digest that fits."""
    (folder / MODEL).write_bytes(b"anything")
    digest = hashlib.sha256(b"anything").hexdigest()
    manifest["files"][MODEL] = {"size": 8, "sha256": digest}


def _forged(folder: Path, change: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
    """A small artifact whose manifest was changed and signed again."""
    saved("BertModel", bert(), folder / "model")
    out = folder / "out"
    made = {"model": str(folder / "model"), "task": "feature-extraction"}
    lc.build(made, output=out, check=False, verify=False)
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    change(out, manifest)
    signed = {key: value for key, value in manifest.items() if key != "digest"}
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    signed["digest"] = hashlib.sha256(canonical).hexdigest()
    (out / "manifest.json").write_text(json.dumps(signed))
    return signed


@pytest.mark.parametrize(
    ("change", "failed", "found"),
    [
        (_narrow, "fails while it is", "are outside the vocabulary, 0 to 1"),
        (_broken, "open", "onnxruntime cannot open model.onnx"),
    ],
)
def test_an_engine_that_refuses(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path, dict[str, Any]], None],
    failed: str,
    found: str,
) -> None:
    manifest = _forged(tmp_path, change)
    source, demands = resolve("model", tmp_path), recorded_demands(tmp_path, manifest, {}, None)
    with pytest.raises(EngineError, match=failed) as caught:
        verify_engines(tmp_path / "out", ["ort-cpu"], source, demands)
    assert caught.value.where == "ort-cpu"
    assert found in str(caught.value.found)
    for command in (["verify"], ["bench", "--no-eager", "--rounds", "1"]):
        assert main([*command, str(tmp_path / "out"), "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert (said["error"], said["exit_code"]) == ("EngineError", 1)
        assert failed in said["message"]
        assert found in said["found"]
