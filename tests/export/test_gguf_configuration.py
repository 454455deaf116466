"""What metadata of GGUF files says of an architecture, and what of it cannot be expressed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader, GGUFTensor
from lepton_compile.export.checkpoint.gguf_layout import hugging_face_names
from lepton_compile.export.source import resolve
from lepton_compile.export.source.gguf import config_of
from tests.export import gguf_files


def configuration(
    folder: Path, name: str, changes: dict[str, Any] | None = None, **keys: Any
) -> Any:
    """What is read of a file that has metadata alone, of a configuration with ``changes``."""
    said = gguf_files.configuration(name).to_dict() | (changes or {})
    config = SimpleNamespace(**{k: v for k, v in said.items() if v is not None})
    architecture = gguf_files.architecture_of(name)
    writer = gguf.GGUFWriter(folder / "m.gguf", architecture)
    gguf_files.add_metadata(writer, config)
    gguf_files.add_keys(writer, keys)
    writer.add_tensor("token_embd.weight", np.ones((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return resolve("m.gguf", folder).config()


def test_yarn_of_gpt_oss(tmp_path: Path) -> None:
    """Its ramp is not rounded, which no file says."""
    found = configuration(tmp_path, "gpt-oss").rope_parameters
    assert found == gguf_files.MODELS["gpt-oss"]["rope_parameters"]


def test_attention_of_ministral_is_scaled_by_position(tmp_path: Path) -> None:
    config = configuration(tmp_path, "ministral3")
    expected = gguf_files.MODELS["ministral3"]["rope_parameters"]
    assert config.rope_parameters == pytest.approx(expected)


def test_without_yarn_it_is_an_earlier_mistral(tmp_path: Path) -> None:
    plain = {"rope_parameters": {"rope_theta": 1000.0}, "model_type": "mistral"}
    assert configuration(tmp_path, "ministral3", plain).model_type == "mistral"


def test_yarn_is_of_the_layers_without_a_window_in_olmo3(tmp_path: Path) -> None:
    config = configuration(tmp_path, "olmo3")
    assert config.rope_parameters == gguf_files.MODELS["olmo3"]["rope_parameters"]
    assert config.layer_types == ["sliding_attention"] * 3 + ["full_attention"]


@pytest.mark.parametrize("said", [3, [True, True, False]])
def test_layers_with_a_window_are_those_that_the_file_says(tmp_path: Path, said: Any) -> None:
    layers = {"num_hidden_layers": 3}
    config = configuration(tmp_path, "gemma2", layers, attention__sliding_window_pattern=said)
    assert config.layer_types == ["sliding_attention"] * 2 + ["full_attention"]


def test_the_largest_gemma2_scales_queries_by_the_width(tmp_path: Path) -> None:
    assert configuration(tmp_path, "gemma2").query_pre_attn_scalar == 32
    largest = configuration(tmp_path, "gemma2", {"num_hidden_layers": 46})
    assert largest.query_pre_attn_scalar == 16


def test_an_older_gemma2_file_has_its_softcaps(tmp_path: Path) -> None:
    none = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    config = configuration(tmp_path, "gemma2", {"model_type": "gemma2 as it was"})
    assert {name: getattr(config, name) for name in none} == none
    assert config.sliding_window == 4096


# What a file says that has no configuration, and what the error calls it.
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "positions on several axes": (
        "glm4",
        {},
        {"rope__dimension_sections": [8, 12, 12, 0]},
        "GLM-4.1V",
    ),
    "further tokens": ("glm4", {}, {"nextn_predict_layers": 1}, "predict further tokens"),
    "no rotary embedding": (
        "granite",
        {},
        {"rope__scaling__finetuned": False},
        "without a rotary embedding",
    ),
    "heads of layers": ("qwen3", {"num_key_value_heads": [2, 4]}, {}, "head_count_kv that differs"),
    "no layer with states": ("lfm2", {"layer_types": []}, {}, "which layers have none"),
    "no layer with attention": ("lfm2", {"layer_types": ["conv"] * 2}, {}, "head_count_kv [0, 0]"),
    "window of a hybrid": ("lfm2", {}, {"attention__sliding_window": 8}, "lfm2 with a window"),
    "windows of other layers": (
        "exaone4",
        {"layer_types": ["full_attention"] * 3},
        {},
        "a window in 3 of 4 layers",
    ),
    "part of a head": (
        "qwen3",
        {"rope_parameters": {"rope_theta": 1000.0, "partial_rotary_factor": 0.5}},
        {},
        "rope.dimension_count 16 of 32",
    ),
    "a mix of yarn": (
        "gpt-oss",
        {},
        {"rope__scaling__yarn_ext_factor": 0.5},
        "yarn_ext_factor 0.5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused(case: str, tmp_path: Path) -> None:
    name, changes, keys, expected = REFUSED[case]
    with pytest.raises(SourceError, match="cannot be expressed") as caught:
        configuration(tmp_path, name, changes, **keys)
    assert expected in str(caught.value.found)
    assert "Hugging Face folder" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("qwen3moe", {"num_local_experts": None}, "expert_used_count"),
        ("cohere2", {"sliding_window": 0}, "attention.sliding_window"),
    ],
)
def test_what_an_architecture_needs_is_asked_for(
    tmp_path: Path, name: str, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(SourceError, match="lacks what a configuration needs") as caught:
        configuration(tmp_path, name, changes)
    assert caught.value.found == f"missing: {key}"


@pytest.mark.parametrize("said", ["four", 0, [1.5, "a"]])
def test_heads_that_are_no_number_make_no_configuration(tmp_path: Path, said: Any) -> None:
    metadata = {"general.architecture": "qwen3", "qwen3.attention.head_count": said}
    keys = ("context_length", "block_count", "feed_forward_length", "embedding_length")
    metadata |= {f"qwen3.{key}": 2 for key in (*keys, "attention.layer_norm_rms_epsilon")}
    embedding = GGUFTensor("token_embd.weight", (4, 2), 0, 0, 32)
    header = GGUFHeader(tmp_path / "m.gguf", metadata, {"token_embd.weight": embedding})
    with pytest.raises(SourceError, match="does not make a configuration"):
        config_of(header)


def test_norms_of_each_head_of_stablelm_are_refused(tmp_path: Path) -> None:
    """StableLM 2 12B: the model has a norm module for each, the file one matrix."""
    model = gguf_files.tiny_model("stablelm")
    odd = {"blk.0.attn_q_norm.weight": np.ones((4, 16), np.float32)}
    gguf_files.write(tmp_path / "m.gguf", "stablelm", model, extra=odd)
    with pytest.raises(CheckpointError, match="stablelm does not have") as caught:
        resolve("m.gguf", tmp_path).checkpoint()
    assert caught.value.found == "1 unknown: blk.0.attn_q_norm.weight"


def test_both_names_of_the_last_norm_of_lfm2(tmp_path: Path) -> None:
    for name in ("token_embd_norm.weight", "output_norm.weight"):
        found = hugging_face_names("lfm2", [name], tmp_path)
        assert found == {"model.embedding_norm.weight": (name,)}
    with pytest.raises(CheckpointError, match="lfm2 does not have"):
        hugging_face_names("lfm2", ["token_embd_norm.weight", "output_norm.weight"], tmp_path)
