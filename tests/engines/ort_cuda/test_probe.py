"""What the probe says of installations made up by their packages and devices."""

from __future__ import annotations

import pytest

from lepton_compile.engines.ort_cuda import probe as module
from lepton_compile.engines.probe import TargetState

GPU = "NVIDIA L4 (8.9), driver 580.65"


def state(
    monkeypatch: pytest.MonkeyPatch,
    device: str | None = GPU,
    provider: bool = True,
    **versions: str,
) -> TargetState:
    packages = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(module, "installed", packages.get)
    monkeypatch.setattr(module, "gpu_text", lambda: device)
    monkeypatch.setattr(module, "_has_provider", lambda: provider)
    return module.probe()


def test_package_and_gpu_make_it_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = state(monkeypatch, onnxruntime_gpu="1.32.0")
    assert (found.builds, found.runs, found.reason, found.device) == (True, True, "", GPU)


def test_without_a_gpu_nothing_is_offered_that_would_not_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = state(monkeypatch, device=None)
    assert (found.builds, found.runs, found.install) == (True, False, "")
    assert "no NVIDIA GPU" in found.reason
    assert "onnxruntime-gpu is not installed" in found.reason


def test_the_cpu_package_makes_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state(monkeypatch).install == "pip install 'onnxruntime-gpu>=1.31'"
    found = state(monkeypatch, onnxruntime="1.32.0")
    assert found.install.startswith("pip uninstall -y onnxruntime && pip install ")


def test_an_old_package_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = state(monkeypatch, onnxruntime_gpu="1.20.0")
    assert not found.runs
    assert found.install == "pip install -U 'onnxruntime-gpu>=1.31'"


def test_a_cpu_package_over_the_gpu_package_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime_gpu": "1.32.0"}
    assert state(monkeypatch, provider=True, **both).runs
    found = state(monkeypatch, provider=False, **both)
    assert not found.runs
    assert "hides" in found.reason


def test_here_it_answers() -> None:
    found = module.probe()
    assert found.builds
    assert found.runs == (found.reason == "")
