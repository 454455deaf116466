"""The tiny artifacts, each made once, and models opened from them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.runtime import Model, load, loader_tensorrt
from tests.runtime import plans, tiny
from tests.runtime.double import HostDevice
from tests.runtime.on_double import ALIASED, Opener


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.decoder(tmp_path_factory.mktemp("artifacts") / "decoder").path


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.encoder(tmp_path_factory.mktemp("artifacts") / "encoder").path


@pytest.fixture(scope="module")
def model(decoder_folder: Path) -> Iterator[Model]:
    """The decoder: 2 layers of grouped-query attention, cache shared, tokenizer of words."""
    with load(decoder_folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def embedder(encoder_folder: Path) -> Iterator[Model]:
    with load(encoder_folder, threads=1) as opened:
        yield opened


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def opened(device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens an artifact of a plan on the double; at the end everything must be given back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loader_tensorrt, "Cuda", lambda: device)
    models: list[Model] = []

    def open_model(
        plan: bytes,
        target: str = "trt-rtx",
        *,
        cpu: bool = True,
        shared: bool = True,
        **details: Any,
    ) -> Model:
        runtime = "tensorrt_rtx" if target == "trt-rtx" else "tensorrt"
        monkeypatch.setitem(sys.modules, runtime, plans.module(runtime, device))
        folder = tmp_path / f"artifact-{len(models)}"
        chosen = {target: (plan, {**ALIASED, **details})}
        decoder = b'"decoder"' in plan
        how = {"cpu": cpu, "shared": shared}
        made = tiny.decoder(folder, plans=chosen, **how) if decoder else None
        models.append(load((made or tiny.encoder(folder, plans=chosen)).path, threads=1))
        assert models[-1].target == target
        return models[-1]

    yield open_model
    for model in models:
        model.close()
    device.clean()
