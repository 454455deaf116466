"""The driver as it is on this machine, and as a double of ``libcuda`` says it is elsewhere."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.engines import gpu


class Libcuda:
    """What ``libcuda`` answers on a machine with two GPUs; ``fails`` names calls that do not."""

    names = (b"NVIDIA L4", b"NVIDIA H100 80GB HBM3")
    versions = ((8, 9), (9, 0))

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.started = False

    def cuInit(self, flags: int) -> int:  # noqa: N802
        self.started = "cuInit" not in self.fails
        return 0 if self.started else 100

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 13_010
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        assert self.started
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        name.value = self.names[device.value][: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: ctypes.c_int) -> int:  # noqa: N802
        size._obj.value = 24 << 30
        return 0

    def cuDeviceGetAttribute(  # noqa: N802
        self, value: Any, number: int, device: ctypes.c_int
    ) -> int:
        value._obj.value = self.versions[device.value][number - 75]
        return 0


@pytest.fixture
def version_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpu, "VERSION_FILE", tmp_path / "version")
    return tmp_path / "version"


def with_driver(monkeypatch: pytest.MonkeyPatch, *fails: str) -> None:
    monkeypatch.setattr(gpu, "_libcuda", lambda: Libcuda(*fails))


def test_each_gpu_with_its_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch)
    assert gpu.gpus() == (
        gpu.Gpu("NVIDIA L4", "8.9", 24 << 30),
        gpu.Gpu("NVIDIA H100 80GB HBM3", "9.0", 24 << 30),
    )


def test_the_line_names_the_first_and_the_driver(
    monkeypatch: pytest.MonkeyPatch, version_file: Path
) -> None:
    with_driver(monkeypatch)
    assert gpu.gpu_text() == "NVIDIA L4 (8.9) and 1 more, driver CUDA 13.1"
    version_file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module  580.65.06  Release\n")
    assert gpu.driver() == gpu.Driver("580.65.06", "13.1")
    assert gpu.gpu_text() == "NVIDIA L4 (8.9) and 1 more, driver 580.65.06"


def test_a_driver_that_does_not_start_gives_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, "cuInit")
    assert gpu.gpus() == ()
    assert gpu.gpu_text() is None


def test_a_kernel_module_without_libcuda(
    monkeypatch: pytest.MonkeyPatch, version_file: Path
) -> None:
    monkeypatch.setattr(gpu, "_libcuda", lambda: None)
    assert gpu.driver() is None
    version_file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n")
    assert gpu.driver() == gpu.Driver("550.54.15", None)
    assert gpu.gpus() == ()


def test_this_machine_is_asked_without_an_error() -> None:
    known = gpu.driver()
    assert (gpu.gpu_text() is None) == (gpu.gpus() == ())
    assert known is None or known.release or known.cuda


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    found = gpu.gpus()
    if not found:
        pytest.skip("no NVIDIA GPU here")
    assert all(len(g.compute_capability.split(".")) == 2 and g.memory > 1 << 30 for g in found)
    known = gpu.driver()
    assert known is not None
    assert known.cuda is not None
