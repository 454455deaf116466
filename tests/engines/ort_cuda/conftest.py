"""A GPU is stood in for by the CPU."""

from __future__ import annotations

import pytest

from lepton_compile.runtime import loader_cuda_pair, loader_ort_cuda


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU provider in the place of CUDA's."""
    monkeypatch.setattr(loader_ort_cuda, "PROVIDERS", ["CPUExecutionProvider"])
    monkeypatch.setattr(loader_ort_cuda, "check_driver", lambda: None)
    for module in (loader_ort_cuda, loader_cuda_pair):
        monkeypatch.setattr(module, "DEVICE", "cpu")
