"""A GPU is stood in for by the CPU."""

from __future__ import annotations

import pytest

from lepton_compile.runtime import loader_ort, loader_ort_memory


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU provider in the place of CUDA's."""
    monkeypatch.setitem(loader_ort.PROVIDERS, "ort-cuda", ["CPUExecutionProvider"])
    monkeypatch.setitem(loader_ort_memory.DEVICES, "ort-cuda", "cpu")
