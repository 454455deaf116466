"""Adapters that call weights as the model does, where its checkpoint does not.

What PEFT's own model computes, without merging, is computed by hand here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from torch import nn

from lepton_compile.errors import CheckpointError
from lepton_compile.export import resolve
from lepton_compile.export.export import export
from lepton_compile.export.reference import load_reference
from tests.small import llama, made

from .test_adapted import adapter

IDS = torch.tensor([[1, 5, 9, 20, 77, 3]])
RANK, SCALE = 4, 6 / 4
TABLE, HEAD = "model.embed_tokens", "lm_head"


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def product(model: Any, layer: str, *, turned: bool = False) -> dict[str, torch.Tensor]:
    """An adapter's two matrices of a layer, which has their product from then on."""
    weight = model.get_parameter(f"{layer}.weight").data
    rows, columns = weight.shape[::-1] if turned else weight.shape
    down, up = random(RANK, columns), random(rows, RANK)
    weight += SCALE * (up @ down).T if turned else SCALE * up @ down
    if layer == TABLE:  # which is (tokens, width)
        return {
            f"{layer}.lora_embedding_A": up.T.contiguous(),
            f"{layer}.lora_embedding_B": down.T.contiguous(),
        }
    return {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}


def whole(model: Any, layer: str) -> dict[str, torch.Tensor]:
    """What an adapter brings in place of a layer's weight."""
    weight = model.get_parameter(f"{layer}.weight").data
    weight += random(*weight.shape)
    return {f"{layer}.weight": weight.clone()}


def tied(folder: Path) -> Any:
    """A model whose head is its table, saved, and then with a head of its own."""
    model = made("LlamaForCausalLM", llama(tie_word_embeddings=True))
    model.save_pretrained(folder / "base")
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def check(model: Any, folder: Path, task: str = "text-generation") -> None:
    """The reference computes what ``model`` does: it reads weights as an export does."""
    source = resolve(str(folder / "base"), folder, adapter=str(folder / "lora"))
    torch.testing.assert_close(logits(load_reference(source, task)), logits(model))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: product(model, TABLE),
        lambda model: whole(model, TABLE),
        lambda model: product(model, HEAD),
        lambda model: whole(model, HEAD),
        lambda model: product(model, TABLE) | product(model, HEAD),
        lambda model: whole(model, TABLE) | product(model, HEAD),
    ],
    ids=["table", "whole table", "head", "whole head", "both", "each in its way"],
)
def test_tied_weights_are_two_to_an_adapter(change: Any, tmp_path: Path) -> None:
    model = tied(tmp_path)
    adapter(tmp_path / "lora", change(model) | product(model, "model.layers.0.self_attn.q_proj"))
    check(model, tmp_path)


def test_a_tied_base_that_an_adapter_brings_is_that_of_both(tmp_path: Path) -> None:
    model = tied(tmp_path)
    brought = whole(model, TABLE)[f"{TABLE}.weight"]
    model.lm_head.weight.data.copy_(brought)
    tensors = {f"{TABLE}.base_layer.weight": brought, **product(model, TABLE)}
    adapter(tmp_path / "lora", tensors)
    check(model, tmp_path)
    source = resolve(str(tmp_path / "base"), tmp_path, adapter=str(tmp_path / "lora"))
    exported = export(source, "text-generation")
    assert any(note.startswith(f"{HEAD}.weight has numbers of its own") for note in exported.notes)
    assert exported.tied == {}
    foreseen = export(source, "text-generation", weights=False)  # as a plan has it
    assert (foreseen.tied, foreseen.parameters) == ({}, exported.parameters)
    for name in (f"{TABLE}.weight", f"{HEAD}.weight"):
        (value,) = [v for n, v in exported.model.graph.initializers.items() if n.endswith(name)]
        assert value.const_value is not None
        stored = torch.from_numpy(value.const_value.numpy())
        torch.testing.assert_close(stored, model.get_parameter(name).data)


@pytest.mark.parametrize("both", [True, False])
def test_ties_that_the_adapter_keeps(both: bool, tmp_path: Path) -> None:
    model = tied(tmp_path)
    tensors = product(model, TABLE)
    model.lm_head.weight = model.model.embed_tokens.weight
    if both:
        down, up = (tensor.T.contiguous() for tensor in reversed(tensors.values()))
        tensors |= {f"{HEAD}.lora_A.weight": down, f"{HEAD}.lora_B.weight": up}
    adapter(tmp_path / "lora", tensors, ensure_weight_tying=True)
    check(model, tmp_path)
    source = resolve(str(tmp_path / "base"), tmp_path, adapter=str(tmp_path / "lora"))
    for weights in (True, False):
        found = export(source, "text-generation", weights=weights)
        assert found.tied == {f"{HEAD}.weight": f"{TABLE}.weight"}
        assert not any("numbers of its own" in note for note in found.notes)


def test_one_of_two_that_stay_tied_is_enough(tmp_path: Path) -> None:
    model = tied(tmp_path)
    tensors = whole(model, TABLE)
    model.lm_head.weight = model.model.embed_tokens.weight
    named = {"modules_to_save": ["embed_tokens", "lm_head"]}
    adapter(tmp_path / "lora", tensors, ensure_weight_tying=True, **named)
    check(model, tmp_path)
    adapter(tmp_path / "lora", tensors, **named)
    with pytest.raises(CheckpointError, match="trained as a whole") as caught:
        check(model, tmp_path)
    assert str(caught.value.found).startswith("lm_head; ")


@pytest.mark.parametrize("head", [True, False])
def test_a_checkpoint_without_the_prefix_of_the_base_model(head: bool, tmp_path: Path) -> None:
    """As openai-community/gpt2 is published; its layers are (inputs, outputs), its head is not."""
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    model = made("GPT2LMHeadModel", transformers.GPT2Config(vocab_size=99, **sizes, **tokens))
    model.transformer.save_pretrained(tmp_path / "base")
    model.config.save_pretrained(tmp_path / "base")
    with safe_open(tmp_path / "base/model.safetensors", "pt") as stored:
        assert "h.0.attn.c_attn.weight" in stored.keys()  # noqa: SIM118
    tensors = product(model, "transformer.h.0.attn.c_attn", turned=True)
    tensors |= product(model, "transformer.h.1.attn.c_proj", turned=True)
    tensors |= {f"transformer.ln_f.{n}": random(64) for n in ("weight", "bias")}
    for name in ("weight", "bias"):
        model.transformer.ln_f.get_parameter(name).data.copy_(tensors[f"transformer.ln_f.{name}"])
    if head:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
        tensors |= product(model, HEAD)
    adapter(tmp_path / "lora", tensors, fan_in_fan_out=not head)
    check(model, tmp_path)


def test_a_head_that_the_base_has_not(tmp_path: Path) -> None:
    config = llama(num_labels=3)
    made("LlamaForCausalLM", config).save_pretrained(tmp_path / "base")
    model = made("LlamaForSequenceClassification", config)
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    model.model.load_state_dict(base.model.state_dict())
    tensors = whole(model, "score") | product(model, "model.layers.1.mlp.up_proj")
    heads = ["classifier", "score"]  # PEFT names both
    adapter(tmp_path / "lora", tensors, task_type="SEQ_CLS", modules_to_save=heads)
    check(model, tmp_path, "text-classification")
    source = resolve(str(tmp_path / "base"), tmp_path, adapter=str(tmp_path / "lora"))
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        export(source, "text-generation")  # which would go without what was trained
    assert caught.value.found == "1 of no weight: base_model.model.score.weight"
    llama(num_labels=2).save_pretrained(tmp_path / "base")
    source = resolve(str(tmp_path / "base"), tmp_path, adapter=str(tmp_path / "lora"))
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        export(source, "text-classification")
    assert "score.weight is [3, 64], the model's [2, 64]" in str(caught.value.found)
