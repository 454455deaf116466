"""Two small artifacts, built once through the command line itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compile.cli import main
from tests.small import bert, llama, saved


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, fp32, not verified."""
    folder = tmp_path_factory.mktemp("bert")
    saved("BertModel", bert(), folder / "model")
    return _build(folder, "feature-extraction")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, fp32, not verified."""
    folder = tmp_path_factory.mktemp("llama")
    saved("LlamaForCausalLM", llama(bos_token_id=None), folder / "model")
    return _build(folder, "text-generation")


def _build(folder: Path, task: str) -> Path:
    output = folder / "artifact"
    model = ["--model", str(folder / "model"), "--task", task]
    assert main(["build", *model, "-o", str(output), "--no-verify", "--no-check", "-q"]) == 0
    return output
