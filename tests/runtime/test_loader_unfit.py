"""Engines of TensorRT that do not fit: the reason is told, nothing is left, the next is taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.runtime import LoaderError, Model, load, loader_tensorrt
from lepton_compile.runtime.loader_rtx_cache import KernelFile
from tests.runtime import plans, tiny
from tests.runtime.double import HostDevice

PROMPTS = [[2, 7, 9, 20], [5], [2, 33, 4, 18, 60]]
PLAN = plans.decoder_plan()
PLUGIN = {
    "name": "attention",
    "namespace": "lepton",
    "version": "1",
    "architectures": ["sm_80", "sm_86"],
    "folder": "plugin",
}
BROKEN = {"plugin/plugin_runtime.py": b"raise RuntimeError('no kernels')"}


@dataclass(frozen=True)
class Case:
    """What is wrong with the machine or the plan, and what is said about it."""

    said: str
    plan: bytes = PLAN
    version: str = plans.VERSION
    device: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    bindings: str = "13.5"


CASES = {
    "compute capability": Case(
        "Test GPU has compute capability 8.9, the engine is for 9.0, 12.0",
        details={"compute_capabilities": ["9.0", "12.0"]},
    ),
    "compute capability that the runtime refuses": Case(
        "the runtime refuses the plan: unsupported cc", device={"capability": "9.0"}
    ),
    "version": Case("and found 1.8.0.2", version="1.8.0.2"),
    "cuda-bindings": Case("this engine needs cuda-bindings>=13, found 12.8", bindings="12.8"),
    "plugin for other architectures": Case(
        "has compute capability 12.0, the plugin attention has kernels for 8.0, 8.6",
        device={"capability": "12.0"},
        details={"plugin": PLUGIN, "files": BROKEN},
    ),
    "plugin that fails": Case(
        "the plugin attention cannot be used here: RuntimeError: no kernels",
        device={"capability": "8.6"},
        details={"plugin": PLUGIN, "files": BROKEN},
    ),
    "no plan": Case("the runtime refuses the plan: malformed engine", b"anything".ljust(99)),
    "no plan at all": Case("the plan does not open: AssertionError: ", b""),
    "cut plan": Case("the plan does not open on Test GPU (8.9, CUDA 13.0)", PLAN[:-40]),
    "words of the runtime": Case("Serialization (magic tag)", PLAN[:-40]),
    "plan of another model": Case(
        "this loader needs caches that are written in place; ['last_hidden_state'",
        plans.encoder_plan(),
    ),
    "plan of another version": Case(
        "the runtime refuses the plan: version mismatch", PLAN.replace(b"1.7.1", b"1.7.0", 1)
    ),
    "no room at all": Case("out of memory", device={"room": 100}),
    "no room for one row": Case("out of memory", device={"room": 20_000}),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path


def on(device: HostDevice, monkeypatch: pytest.MonkeyPatch, version: str = plans.VERSION) -> Any:
    """The loader on that device; the runtime that it will find."""
    runtime = plans.module("tensorrt_rtx", device, version)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", runtime)
    monkeypatch.setattr(loader_tensorrt, "Cuda", lambda: device)
    return runtime


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_passed_over(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    device = HostDevice(**case.device)
    device.bindings = case.bindings
    on(device, monkeypatch, case.version)
    made = tiny.decoder(home / "artifact", plans={"trt-rtx": (case.plan, case.details)})
    with load(made.path, threads=1) as model:
        assert model.target == "ort-cpu"
        assert case.said in model.passed_over["trt-rtx"]
        assert model.generate(PROMPTS[0], max_new_tokens=2).finish
    device.clean()
    with pytest.raises(LoaderError) as caught:
        load(made.path, target="trt-rtx")
    assert case.said in str(caught.value)
    device.clean()


def test_the_same_machine_with_nothing_wrong_takes_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = HostDevice()
    on(device, monkeypatch)
    made = tiny.decoder(home / "artifact", plans={"trt-rtx": (PLAN, {})})
    with load(made.path, threads=1) as model:
        assert (model.target, model.passed_over) == ("trt-rtx", {})
    device.clean()


def test_a_damaged_plan_is_no_reason_to_take_another(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = HostDevice()
    runtime = on(device, monkeypatch)
    made = tiny.decoder(home / "artifact", plans={"trt-rtx": (PLAN, {})})
    file = made.path / "engines/trt-rtx/model.plan"
    file.write_bytes(PLAN[:-1] + b" ")
    with pytest.raises(LoaderError, match=r"model\.plan is damaged: its SHA-256"):
        load(made.path)
    assert not runtime.made
    device.clean()


def test_room_that_ends_halfway_through_a_cache_is_given_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = HostDevice()
    on(device, monkeypatch)
    made = tiny.decoder(home / "artifact", plans={"trt-rtx": (PLAN, {})})
    with load(made.path, threads=1) as model:
        one = device.allocated()
        device.room = 2 * one
        with pytest.raises(LoaderError, match="out of memory"):
            model.generate(PROMPTS, max_new_tokens=2)
        assert device.allocated() < one
        assert model.generate(PROMPTS[0], max_new_tokens=2).finish
    device.clean()


@pytest.fixture
def compiled(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Model, Any]]:
    """An engine whose kernels are compiled when it is first run, and its runtime."""
    device = HostDevice()
    runtime = on(device, monkeypatch)
    made = tiny.decoder(home / "artifact", plans={"trt-rtx": (PLAN, {})})
    with load(made.path, threads=1) as model:
        yield model, runtime
    device.clean()


def kept(model: Model) -> list[Path]:
    return [*model.path.with_name(f".{model.path.name}.kernels").glob("*.kernels")]


def test_kernels_are_kept_as_soon_as_they_are_compiled(compiled: tuple[Model, Any]) -> None:
    model, runtime = compiled
    assert not kept(model)
    model.generate(PROMPTS[0], max_new_tokens=3)
    (file,) = kept(model)  # and the model is still open
    assert file.stat().st_mode & 0o077 == 0
    written = file.stat().st_mtime_ns, file.read_bytes()
    model.generate(PROMPTS[0], max_new_tokens=3)
    assert (file.stat().st_mtime_ns, file.read_bytes()) == written
    with load(model.path, threads=1):
        assert runtime.made[-1].caches[0].taken == b"kernels Test GPU"


@pytest.mark.parametrize("how", ["damaged", "cut", "open to others"])
def test_kernels_that_cannot_be_trusted_are_not_taken(
    compiled: tuple[Model, Any], how: str
) -> None:
    model, runtime = compiled
    model.generate(PROMPTS[0], max_new_tokens=3)
    (file,) = kept(model)
    whole = file.read_bytes()
    if how == "open to others":
        file.chmod(0o666)
    else:
        file.write_bytes(whole[:-1] + b"?" if how == "damaged" else whole[:-3])
    with load(model.path, threads=1) as other:
        assert runtime.made[-1].caches[0].taken is None
        other.generate(PROMPTS[0], max_new_tokens=3)
    (file,) = kept(model)
    assert file.read_bytes() == whole
    assert file.stat().st_mode & 0o077 == 0


def test_a_user_without_a_home_keeps_kernels_beside_the_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container's, which has a number alone."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    made = KernelFile(tmp_path / "artifact", "engine")
    assert [place.parent for place in made.places] == [tmp_path / ".artifact.kernels"]
    assert made.write(b"kernels") == made.places[0]
    assert KernelFile(tmp_path / "artifact", "engine").read() == b"kernels"
