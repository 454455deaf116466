"""Gemma 4 in GGUF files: what its two kinds of layers have of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader, read_header
from lepton_compile.export.reference import load_reference
from lepton_compile.export.source import resolve
from lepton_compile.export.source.gguf import config_of
from tests.export import gguf_files


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> GGUFHeader:
    path = tmp_path_factory.mktemp("gemma4") / "m.gguf"
    return read_header(gguf_files.write(path, "gemma4", gguf_files.tiny_model("gemma4")))


def test_layers_of_both_kinds(header: GGUFHeader) -> None:
    config = config_of(header)
    assert [layer.head_dim for layer in config.per_layer_config] == [16, 32, 16, 32]
    assert config.rope_parameters["full_attention"] == {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1000000.0,
    }
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 10000.0
    assert (config.intermediate_size, config.use_double_wide_mlp) == (96, True)
    assert config.num_kv_shared_layers == 2


def test_keys_of_layers_that_read_the_cache_of_another_are_not_asked_for(tmp_path: Path) -> None:
    """The file has them where the checkpoint had: nothing reads them."""
    model = gguf_files.tiny_model("gemma4")
    left = {
        "blk.3.attn_k.weight": np.ones((64, 64), np.float32),
        "blk.3.attn_k_norm.weight": np.ones(32, np.float32),
    }
    path = gguf_files.write(tmp_path / "m.gguf", "gemma4", model, extra=left)
    loaded = load_reference(resolve(str(path), tmp_path), "text-generation")
    ids = torch.tensor([[1, 5, 9, 20]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


REFUSED: dict[str, tuple[Any, str]] = {
    "feed_forward_length": (np.array([96, 96, 96, 192]), "feed_forward_length [96, 96, 96, 192]"),
    "attention.head_count_kv": (np.array([2, 1, 2, 1]), "attention.head_count_kv [2, 1, 2, 1]"),
    "attention.sliding_window_pattern": (np.ones(4, bool), "a window in all layers"),
    "rope.dimension_count_swa": (8, "rope.dimension_count_swa 8 of 16"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_expressed_is_refused(header: GGUFHeader, key: str) -> None:
    value, expected = REFUSED[key]
    changed = replace(header, metadata=header.metadata | {f"gemma4.{key}": value})
    with pytest.raises(SourceError, match="cannot be expressed") as caught:
        config_of(changed)
    assert expected in str(caught.value.found)


@pytest.mark.parametrize("factors", [[1] * 3 + [2] * 13, [1e30] + [1] * 15, [1] * 8])
def test_divisors_of_another_embedding_are_refused(tmp_path: Path, factors: list[float]) -> None:
    path = gguf_files.write(
        tmp_path / "m.gguf",
        "gemma4",
        gguf_files.tiny_model("gemma4"),
        extra={"rope_freqs.weight": np.array(factors, np.float32)},
    )
    with pytest.raises(SourceError, match="cannot be expressed") as caught:
        resolve(str(path), tmp_path).config()
    assert caught.value.found == "rope_freqs that are not Gemma 4's"
