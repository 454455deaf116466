"""What the probe says of this installation, and of others made up by their package versions."""

from __future__ import annotations

from importlib import metadata

import pytest

from lepton_compile.engines.ort_cpu import probe as module
from lepton_compile.engines.probe import TargetState


def state(monkeypatch: pytest.MonkeyPatch, **versions: str) -> TargetState:
    packages = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(module, "installed", packages.get)
    return module.probe()


def test_here_it_runs() -> None:
    pytest.importorskip("onnxruntime")
    found = module.probe()
    assert (found.builds, found.runs, found.reason, found.install) == (True, True, "", "")
    assert found.version == metadata.version("onnxruntime")


def test_without_onnxruntime_it_builds_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = state(monkeypatch)
    assert (found.builds, found.runs, found.version) == (True, False, None)
    assert found.install == "pip install 'lepton-compile[cpu]'"


@pytest.mark.parametrize(
    ("version", "runs"), [("1.29.1", False), ("1.30.0rc1", True), ("2.0", True)]
)
def test_the_oldest_version(monkeypatch: pytest.MonkeyPatch, version: str, runs: bool) -> None:
    found = state(monkeypatch, onnxruntime=version)
    assert found.runs is runs
    assert bool(found.install) is not runs


def test_the_gpu_package_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state(monkeypatch, onnxruntime_gpu="1.32.0").runs
    assert "onnxruntime-gpu" in state(monkeypatch, onnxruntime_gpu="1.20.0").install


def test_versions_are_compared_as_numbers() -> None:
    assert module.at_least("1.100", "1.30")
    assert not module.at_least("1.3", "1.30")
