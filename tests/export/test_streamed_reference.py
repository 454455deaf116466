"""The fp32 model a layer at a time: the numbers of the whole, and no more than a layer held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from lepton_compile.export.reference import load_reference, streamed_parameters
from lepton_compile.export.source import resolve
from lepton_compile.export.streamed_reference import held_parameters
from tests.export import gguf_files
from tests.export.zoo import DECODERS, MORE_DECODERS

TASK = "text-generation"
IDS = torch.tensor([[1, 5, 9, 20, 3]])
NAMES = ("llama", "gemma3", "gpt2", "phi3", "mixtral", "gpt-oss", "deepseek-v3", "cohere2")
MAKERS: dict[str, Callable[[], Any]] = {
    name: each[0] for name, each in {**DECODERS, **MORE_DECODERS}.items() if name in NAMES
}


def scores(module: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(module(input_ids=IDS, use_cache=False).logits)


def written(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_it_gives_the_numbers_of_the_whole(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(MAKERS[name]()).save_pretrained(tmp_path)
    source = resolve(str(tmp_path), tmp_path)
    whole, streamed = (load_reference(source, TASK, streamed=each) for each in (False, True))
    for _ in range(2):
        np.testing.assert_array_equal(scores(streamed), scores(whole))
    held = streamed_parameters(source, TASK)
    assert held is not None
    assert written(streamed) < held < written(whole)


def test_no_more_than_a_layer_is_held(tmp_path: Path) -> None:
    gguf_files.tiny_model("llama").save_pretrained(tmp_path)
    source = resolve(str(tmp_path), tmp_path)
    streamed, most = load_reference(source, TASK, streamed=True), 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, written(streamed))

    for layer in streamed.model.layers:  # type: ignore[union-attr]
        layer.mlp.register_forward_hook(look)  # type: ignore[union-attr]
    before = written(streamed)
    scores(streamed)
    assert before < most == streamed_parameters(source, TASK)
    assert written(streamed) == before


def test_a_gguf_file_is_streamed(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    source = resolve("m.gguf", tmp_path)
    whole, streamed = (load_reference(source, TASK, streamed=each) for each in (False, True))
    np.testing.assert_array_equal(scores(streamed), scores(whole))


class Shared(nn.Module):
    """Layers of which two are one."""

    def __init__(self) -> None:
        super().__init__()
        layer = transformers.models.llama.modeling_llama.LlamaDecoderLayer
        config = transformers.LlamaConfig(hidden_size=32, num_attention_heads=2)
        first, second = layer(config, 0), layer(config, 1)
        second.mlp = first.mlp
        self.layers = nn.ModuleList([first, second])


def test_what_cannot_be_streamed_is_told_so(tmp_path: Path) -> None:
    assert held_parameters(Shared()) is None, "what one layer lets go another needs"
    assert held_parameters(nn.Linear(3, 3)) is None, "there are no layers"
    gguf_files.tiny_model("llama").save_pretrained(tmp_path)
    assert streamed_parameters(resolve(str(tmp_path), tmp_path), "feature-extraction") is None
