"""The language model of one that sees, too, is compiled: of text it says what the whole says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import lepton_compile as lc
from lepton_compile.errors import CheckpointError
from lepton_compile.export.reference import load_reference, reference_parameters
from lepton_compile.export.source import resolve
from lepton_compile.export.text_part import own_name, text_part

from .harness import FP32, compiled, empty_cache, relative_error, run
from .zoo import DECODERS

_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def _gemma3() -> Any:
    vision = transformers.SiglipVisionConfig(**_VISION)
    text = DECODERS["gemma3"][0]()
    return transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)


def _llava() -> Any:
    vision = transformers.CLIPVisionConfig(**_VISION)
    return transformers.LlavaConfig(text_config=DECODERS["llama"][0](), vision_config=vision)


def _smolvlm() -> Any:
    vision = {**_VISION, "image_size": 32, "patch_size": 16}
    text = DECODERS["llama"][0]().to_dict()
    known = {"text_config": text, "vision_config": vision, "tie_word_embeddings": False}
    return transformers.SmolVLMConfig(**known)


WHOLES = {
    "Gemma3ForConditionalGeneration": (_gemma3, "Gemma3ForCausalLM"),
    "LlavaForConditionalGeneration": (_llava, "LlamaForCausalLM"),
    "SmolVLMForConditionalGeneration": (_smolvlm, "LlamaForCausalLM"),
}


def _saved(kind: str, folder: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    whole: torch.nn.Module = getattr(transformers, kind)(WHOLES[kind][0]()).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_(0.0, 0.2)
    whole.save_pretrained(folder)  # type: ignore[operator]
    return whole


def _renamed(folder: Path, old: str, new: str) -> None:
    file = folder / "model.safetensors"
    tensors = {name.replace(old, new): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", list(WHOLES))
def test_it_says_of_text_what_the_whole_says(kind: str, tmp_path: Path) -> None:
    whole = _saved(kind, tmp_path)
    exported, session = compiled(tmp_path, "text-generation")
    assert (exported.how, exported.architecture) == ("stamped", WHOLES[kind][1])
    assert exported.notes[0] == f"of {kind} the language model alone"
    ids = np.random.default_rng(0).integers(3, 90, (2, 11))
    mask = np.ones_like(ids)
    feeds = {"input_ids": ids, "attention_mask": mask, **empty_cache(session, 2)}
    found = run(session, feeds)["logits"]
    with torch.no_grad():
        wanted = whole(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    assert relative_error(found, wanted.logits.numpy()) < FP32


def test_tensors_by_todays_names_are_found_as_well(tmp_path: Path) -> None:
    _saved("LlavaForConditionalGeneration", tmp_path)
    _, session = compiled(tmp_path, "text-generation")
    _renamed(tmp_path, "language_model.lm_head", "lm_head")
    _renamed(tmp_path, "language_model.model", "model.language_model")
    _, again = compiled(tmp_path, "text-generation")
    ids = np.arange(3, 12)[None]
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), **empty_cache(session, 1)}
    np.testing.assert_array_equal(run(again, feeds)["logits"], run(session, feeds)["logits"])


def test_the_whole_is_what_it_is_compared_with(tmp_path: Path) -> None:
    _saved("LlavaForConditionalGeneration", tmp_path)
    reference = load_reference(resolve(str(tmp_path), base=tmp_path), "text-generation")
    assert type(reference).__name__ == "LlavaForConditionalGeneration"


def test_a_language_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    _saved("LlavaForConditionalGeneration", tmp_path)
    _renamed(tmp_path, "language_model.model.norm", "language_model.other.norm")
    with pytest.raises(CheckpointError) as caught:
        compiled(tmp_path, "text-generation")
    assert "model.norm.weight" in str(caught.value)


def test_it_is_planned_from_its_configuration_alone(tmp_path: Path) -> None:
    _gemma3().save_pretrained(tmp_path)
    plan = lc.plan(model=str(tmp_path), task="text-generation")
    text = transformers.Gemma3ForCausalLM(DECODERS["gemma3"][0]())
    assert plan.parameters == sum(p.numel() for p in text.parameters())


def test_a_plan_counts_the_whole_that_is_compared_with(tmp_path: Path) -> None:
    """It is loaded with what sees, which is not run."""
    task, weights, estimates = "text-generation", [], []
    for width in (4096, 8192):
        vision = transformers.CLIPVisionConfig(**{**_VISION, "intermediate_size": width})
        config = transformers.LlavaConfig(text_config=DECODERS["llama"][0](), vision_config=vision)
        config.architectures = ["LlavaForConditionalGeneration"]
        config.save_pretrained(tmp_path / str(width))
        whole = transformers.LlavaForConditionalGeneration(config)
        weights.append(sum(parameter.numel() for parameter in whole.parameters()))
        plan = lc.plan(model=str(tmp_path / str(width)), task=task)
        estimates.append(plan.verify)
        source = resolve(str(tmp_path / str(width)), base=tmp_path, weights=False)
        assert reference_parameters(source, task, plan.parameters) == weights[-1]
    first, second = estimates
    assert first is not None
    assert second is not None
    more = second.peak_memory_bytes - first.peak_memory_bytes
    assert more == 4 * (weights[1] - weights[0]) > 1 << 20
    assert first.seconds == second.seconds


def test_where_there_is_no_part_to_take() -> None:
    assert text_part(_llava(), "feature-extraction") is None
    assert text_part(DECODERS["llama"][0](), "text-generation") is None
    part = text_part(_llava(), "text-generation")
    assert part is not None
    assert part.model_type == "llama"


@pytest.mark.parametrize(
    ("whole", "own"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("model.text_model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.vision_tower.embeddings.weight", "model.vision_tower.embeddings.weight"),
    ],
)
def test_names(whole: str, own: str) -> None:
    assert own_name(whole) == own
