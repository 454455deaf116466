"""What transformers lists is tried, one architecture after the other, and told in a table."""

from __future__ import annotations

import architectures
import pytest
import transformers


def test_what_is_listed_is_text() -> None:
    decoders, encoders, masked, labelled = (
        architectures.listed(task) for task in architectures.TASKS
    )
    assert decoders["llama"] == "LlamaForCausalLM"
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


def test_each_is_tried_in_a_process_of_its_own() -> None:
    found = dict(architectures.results("text-generation", ["llama", "reformer"], 120))
    assert found["llama"] == {"class": "LlamaForCausalLM", "result": "compiled", "how": "stamped"}
    assert found["reformer"]["result"] in ("untried", "refused")
    assert found["reformer"]["reason"]


def test_one_that_takes_too_long_is_given_up() -> None:
    found = dict(architectures.results("text-generation", ["gpt2"], 0))
    assert found["gpt2"]["reason"] == "no answer in 0 seconds"


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
