"""What a machine can do with a TensorRT: all that is in the way, a command only where it helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lepton_compile.engines.gpu import Driver, Gpu
from lepton_compile.engines.tensorrt import probe
from lepton_compile.engines.tensorrt.flavour import RTX, TRT

L4, H100 = Gpu("NVIDIA L4", "8.9", 24 << 30), Gpu("NVIDIA H100", "9.0", 80 << 30)
DRIVER = Driver("580.65", "13.0")
ABSENT_RTX, ABSENT_TRT = (replace(each, package="nowhere-to-be-found") for each in (RTX, TRT))


def machine(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, driver: Driver | None = None) -> None:
    """The machine that the driver would describe."""
    monkeypatch.setattr(probe, "gpus", lambda: gpus)
    monkeypatch.setattr(probe, "driver", lambda: driver)


def test_without_gpu_and_package_tensorrt_names_both_and_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch)
    state = probe.probe_flavour(ABSENT_TRT)
    assert (state.builds, state.runs, state.install) == (False, False, "")
    assert state.reason == "there is no NVIDIA driver; TensorRT is not installed"


def test_with_a_gpu_the_command_is_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, H100, driver=DRIVER)
    state = probe.probe_flavour(ABSENT_TRT)
    assert (state.reason, state.install) == ("TensorRT is not installed", TRT.install)


def test_rtx_builds_without_a_gpu_once_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    state = probe.probe_flavour(ABSENT_RTX)
    assert (state.builds, state.install) == (False, RTX.install)
    assert state.reason.startswith("TensorRT-RTX is not installed; with it, engines build here; to")
    assert state.reason.endswith("there is no NVIDIA driver")


@pytest.mark.parametrize(
    ("gpus", "driver", "words"),
    [
        ((), None, "there is no NVIDIA driver"),
        ((), Driver("470.1", None), "the NVIDIA driver 470.1 does not open"),
        ((L4,), Driver("550.1", "12.4"), "the driver knows CUDA 12.4, 13.0 or newer is needed"),
        ((), DRIVER, "the NVIDIA driver sees no GPU"),
        ((H100,), DRIVER, "the GPU is a 9.0, engines are for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
    ],
)
def test_why_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[Gpu, ...], driver: Driver | None, words: str
) -> None:
    pytest.importorskip("tensorrt_rtx")
    machine(monkeypatch, *gpus, driver=driver)
    state = probe.probe_flavour(RTX)
    assert (state.builds, state.runs) == (True, False)
    assert state.reason == f"it builds here; to run: {words}"


def test_where_all_is_there_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    machine(monkeypatch, L4, driver=DRIVER)
    state = probe.probe_flavour(RTX)
    has = probe.installed("cuda-bindings") is not None
    assert state.runs is has
    assert state.install == ("" if has else RTX.install)
