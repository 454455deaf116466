"""The tiny artifacts, each made once, and models opened from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_compile.runtime import Model, load
from tests.runtime import tiny


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
