"""What transformers lists is tried, one architecture after the other, and told in a table."""

from __future__ import annotations

import os
from collections.abc import Iterator

import architectures
import pytest
import torch
import transformers


def test_what_is_listed_is_text() -> None:
    decoders, pairs, encoders, masked, labelled = (
        architectures.listed(task) for task in architectures.TASKS
    )
    assert decoders["llama"] == "LlamaForCausalLM"
    assert pairs["bart"] == "BartForConditionalGeneration"
    assert not {"voxtral", "seamless_m4t", "qwen2_audio"} & {*pairs}
    assert encoders["bert"] == "BertModel"
    assert encoders["t5"] == "T5EncoderModel"
    assert masked["bert"] == "BertForMaskedLM"
    assert labelled["bert"] == "BertForSequenceClassification"
    assert not {"vit", "clip"} & {*decoders, *encoders, *masked, *labelled}


@pytest.mark.parametrize("kind", ["Gemma3TextConfig", "Gemma3Config", "Qwen3MoeConfig"])
def test_a_configuration_becomes_tiny(kind: str) -> None:
    config = architectures.shrunk(getattr(transformers, kind)()).get_text_config()
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (32, 3, 260)
    assert len(getattr(config, "layer_types", None) or [0] * 3) == 3


@pytest.fixture
def threads() -> Iterator[None]:
    """torch computes with several threads, and has begun to."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    torch.randn(4000, 1000).softmax(-1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_each_is_tried_in_a_process_of_its_own() -> None:
    """Whatever threads there are in ours: a copy of it would wait for them."""
    found = dict(architectures.results("text-generation", ["llama", "reformer"], 120))
    assert found["llama"] == {"class": "LlamaForCausalLM", "result": "compiled", "how": "stamped"}
    assert found["reformer"]["result"] in ("untried", "refused")
    assert found["reformer"]["reason"]


def test_in_8_bits_it_is_one_that_runs() -> None:
    """Experts whose activation no kernel has run as their body, beside caches of halves."""
    found = dict(architectures.results("text-generation", ["nemotron_h"], 120, "int8"))
    assert found["nemotron_h"]["result"] == "compiled"


def test_one_that_takes_too_long_is_given_up() -> None:
    found = dict(architectures.results("text-generation", ["gpt2"], 0))
    assert found["gpt2"]["reason"] == "no answer in 0 seconds"


def test_one_whose_process_ends_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "child", os._exit)
    monkeypatch.setattr(architectures, "listed", lambda _: {"gpt2": "GPT2LMHeadModel"})
    (found,) = (each for _, each in architectures.results("text-generation", None, 60))
    assert found["result"] == "failed"
    assert found["reason"] == "its process ended with 1"  # it takes one argument


def test_the_table_tells_who_compiles_and_why_not() -> None:
    found = {
        "llama": {"class": "LlamaForCausalLM", "result": "compiled", "how": "stamped"},
        "rwkv": {
            "class": "RwkvForCausalLM",
            "result": "refused",
            "reason": "RwkvForCausalLM cannot be captured as a graph: a | b\n c" + "x" * 400,
        },
        "odd": {"class": "Odd", "result": "untried", "reason": "no"},
    }
    text = architectures.markdown({"text-generation": found}, {"transformers": "5.23.0"})
    assert "1 of 2 that were tried compile." in text
    assert "| stamped | `llama` |" in text
    assert "| not tried | `odd` |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `rwkv`")]
    assert row.startswith("| `rwkv` | a / b c")
    assert len(row) < 330
