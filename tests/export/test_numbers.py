"""Numbers of config.json that no model has: each is told by its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from lepton_compile.errors import ExportError, SourceError
from lepton_compile.export.meta import build
from lepton_compile.export.source import resolve
from tests.export import gguf_files
from tests.small import llama


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"text_config": {"max_position_embeddings": -1}}, "text_config.max_position_embeddings"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"use_sliding_window": True, "sliding_window": -1}, "sliding_window"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
        ({"own": [1, {"scale": float("nan")}]}, "own.1.scale"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"text_config": {"num_attention_heads": float("inf")}}, "text_config.num_attention_heads"),
        ({"n_embd": 1 << 25}, "n_embd"),
    ],
    ids=str,
)
def test_numbers_that_no_model_has(change: dict[str, Any], place: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **change}))
    with pytest.raises(SourceError, match="a model can have") as caught:
        resolve(str(tmp_path), tmp_path)
    assert caught.value.message.startswith(f"{place} is")
    assert caught.value.where == str(tmp_path / "config.json")


def test_steps_without_a_limit_and_windows_that_are_off(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    fine = {"time_step_limit": [0.0, float("inf")], "use_sliding_window": False}
    fine |= {"attention_window_size": 2**31 - 1, "max_position_embeddings": 10**9}
    config = {"model_type": "llama", "sliding_window": 0, **fine}
    (tmp_path / "config.json").write_text(json.dumps(config))
    resolve(str(tmp_path), tmp_path)


def test_sizes_of_gguf_metadata(tmp_path: Path) -> None:
    """The graph would be traced, with rows of that width, before the weights are looked at."""
    file = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    data, key = file.read_bytes(), b"llama.embedding_length"
    at = data.index(key) + len(key) + 4  # behind the type of the value
    file.write_bytes(data[:at] + (1 << 27).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(SourceError, match="hidden_size is nothing that a model can have") as caught:
        resolve(str(file), tmp_path).config()
    assert caught.value.where == str(file)


def test_widths_of_vectors() -> None:
    """Rows as wide as the weight of a norm are computed with, long before it is read."""
    with pytest.raises(ExportError, match="a tensor that no model has") as caught:
        build(lambda: LlamaForCausalLM(llama(hidden_size=1 << 23)))
    assert str(caught.value.where).endswith("norm.weight")
