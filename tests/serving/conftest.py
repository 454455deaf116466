"""Tiny artifacts to export, each made once."""

from __future__ import annotations

import pytest

from lepton_compile.artifact import Artifact
from tests.runtime import tiny
from tests.serving.artifacts import encoder_with


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny.decoder(tmp_path_factory.mktemp("serving") / "decoder")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny.encoder(tmp_path_factory.mktemp("serving") / "encoder")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("serving") / "classifier"
    return tiny.encoder(folder, "text-classification")


@pytest.fixture(scope="session")
def rtx_encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An encoder with engines for ort-cpu and trt-rtx."""
    return encoder_with(tmp_path_factory.mktemp("serving") / "rtx", "trt-rtx")


@pytest.fixture(scope="session")
def trt_encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An encoder with engines for ort-cpu and trt, the latter for two compute capabilities."""
    return encoder_with(
        tmp_path_factory.mktemp("serving") / "trt",
        "trt",
        compute_capabilities=["8.9", "9.0"],
        profiles=[
            {"name": "all", **{end: {"input_ids": [8, 16]} for end in ("min", "opt", "max")}}
        ],
    )
