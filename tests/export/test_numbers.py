"""Numbers of config.json that no model has: each is told by its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lepton_compile.errors import SourceError
from lepton_compile.export.source import resolve


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
