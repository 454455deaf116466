"""Two small artifacts, built once through the command line itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compile.cli import main


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, fp32, not verified."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertModel(config).save_pretrained(folder / "model")
    return _build(folder, "feature-extraction")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, fp32, not verified."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return _build(folder, "text-generation")


def _build(folder: Path, task: str) -> Path:
    output = folder / "artifact"
    model = ["--model", str(folder / "model"), "--task", task]
    assert main(["build", *model, "-o", str(output), "--no-verify", "--no-check", "-q"]) == 0
    return output
