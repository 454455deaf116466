"""Models that cannot be captured: the error names the model, the reasons and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

import lepton_compile as lc
from lepton_compile.errors import ExportError, RecipeError
from tests.small import SIZES, bert, llama

from .harness import compiled, save
from .zoo import DECODERS, REFUSED


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    config, architecture, reason = REFUSED[name]
    save(config, "text-generation", tmp_path)
    with pytest.raises(ExportError) as caught:
        compiled(tmp_path, "text-generation")
    assert caught.value.message == f"{architecture} cannot be captured as a graph"
    assert reason in str(caught.value.found)
    assert caught.value.hint


def test_where_the_model_is_that_cannot_be_captured(tmp_path: Path) -> None:
    config, _, reason = REFUSED["mixtral-tanh"]  # the one that is soonest refused
    save(config, "text-generation", tmp_path / "model")
    for call in (lc.build, lc.plan):
        with pytest.raises(ExportError) as caught:
            call(model=str(tmp_path / "model"), task="text-generation")
        assert reason in str(caught.value.found)
        assert caught.value.where == str(tmp_path / "model")


# A part of each head is turned, as the code of Llama cannot.
_HALF = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0, "partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rope_parameters": _HALF}, "rows of the rotary embedding differ in width (16 and 8)"),
        ({"num_key_value_heads": 3}, "heads of queries are no multiple of those of keys (4 and 3)"),
    ],
    ids=["rotary", "heads"],
)
def test_what_transformers_builds_and_cannot_run(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Captured it would be another model, or one that no kernel runs."""
    save(lambda: llama(**changes), "text-generation", tmp_path)
    with pytest.raises(ExportError) as caught:
        compiled(tmp_path, "text-generation")
    assert reason in str(caught.value.found)
    assert f"compare {next(iter(changes))} with" in str(caught.value.hint)


def test_a_decoder_that_labels_texts_and_pads_none(tmp_path: Path) -> None:
    """It would not know where shorter texts of a batch end."""
    llama(pad_token_id=None).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="no padding token is defined") as caught:
        lc.plan(model=str(tmp_path), task="text-classification")
    assert "pad_token_id" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["BertConfig", "RobertaConfig", "RemBertConfig"])
def test_a_model_that_looks_ahead_generates_no_text(name: str, tmp_path: Path) -> None:
    """Whether its attention is captured or, as RemBERT's, its own code."""
    sizes = {**SIZES, "max_position_embeddings": 66, "pad_token_id": 1}
    save(lambda: getattr(transformers, name)(**sizes), "text-generation", tmp_path)
    with pytest.raises(ExportError, match="each of its tokens sees those after it") as caught:
        compiled(tmp_path, "text-generation")
    assert (caught.value.where, caught.value.found) == ("config.json", "is_decoder: false")
    assert "is_decoder: true" in str(caught.value.hint)


def test_a_vocabulary_of_two_sizes(tmp_path: Path) -> None:
    """Marian has one for what it reads and one for what it writes."""
    options = {"d_model": 32, "decoder_layers": 1, "encoder_layers": 1, "pad_token_id": 0}
    config = transformers.MarianConfig(
        vocab_size=99, decoder_vocab_size=150, eos_token_id=2, **options
    )
    save(lambda: config, "text-generation", tmp_path)
    with pytest.raises(ExportError, match="scores another number of tokens") as caught:
        compiled(tmp_path, "text-generation")
    assert caught.value.where == str(tmp_path / "config.json")
    assert caught.value.found == "vocab_size: 99, and 150 scores"


def test_a_task_that_the_architecture_has_no_model_for(tmp_path: Path) -> None:
    save(DECODERS["llama"][0], "text-generation", tmp_path)
    with pytest.raises(ExportError, match="no model of this architecture") as caught:
        compiled(tmp_path, "fill-mask")
    assert caught.value.found == "LlamaConfig"


@pytest.mark.parametrize("wanted", [1, (1, 2), (3, 4)])
@pytest.mark.parametrize("task", ["text-generation", "feature-extraction"])
def test_sequences_too_short_to_trace_are_the_recipes_mistake(
    task: str, wanted: int | tuple[int, int], tmp_path: Path
) -> None:
    (llama() if task == "text-generation" else bert()).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="shorter than what a model is traced with") as caught:
        lc.plan(model=str(tmp_path), task=task, shapes={"sequence": wanted})
    assert caught.value.where == "shapes.sequence"
    assert caught.value.found == str(wanted if isinstance(wanted, int) else wanted[1])
    assert caught.value.available == ("an end from 5 on",)
    lc.plan(model=str(tmp_path), task=task, shapes={"sequence": (1, 5)})


@pytest.mark.parametrize("shapes", [{}, {"sequence": 2}, {"sequence": 5}])
@pytest.mark.parametrize("task", ["text-generation", "feature-extraction"])
def test_a_model_too_short_to_trace_is_told_whatever_the_recipe_says(
    task: str, shapes: dict[str, int], tmp_path: Path
) -> None:
    """No length that a recipe may write would help."""
    make = llama if task == "text-generation" else bert
    make(max_position_embeddings=4).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="fewer tokens than a model is traced with") as caught:
        lc.plan(model=str(tmp_path), task=task, shapes=shapes)
    assert caught.value.found == "positions for 4 tokens"
    assert caught.value.available == ("5 and more",)


@pytest.mark.parametrize("count", [0, -1])
def test_a_model_without_layers(count: int, tmp_path: Path) -> None:
    """The layers of its checkpoint were left out as another task's head would be."""
    llama(num_hidden_layers=count).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="the model has no layers") as caught:
        lc.plan(model=tmp_path, overrides={"task": "text-generation"})
    assert caught.value.found == str(count)


def test_a_head_for_labels_gives_no_answers(tmp_path: Path) -> None:
    bert(num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="starts and ends of answers") as caught:
        lc.plan(model=str(tmp_path), task="question-answering")
    assert caught.value.where == str(tmp_path / "config.json")
    assert caught.value.found == "num_labels: 3"
    lc.plan(model=str(tmp_path), task="token-classification")


def test_a_head_for_labels_by_another_name(tmp_path: Path) -> None:
    names = ("pad", "bos", "eos", "cls", "sep")
    tokens = {f"{name}_token_id": n for n, name in enumerate(names)}
    for labels in (2, 3):
        transformers.ModernBertConfig(**SIZES, **tokens, num_labels=labels).save_pretrained(
            tmp_path
        )
        if labels == 2:
            lc.plan(model=str(tmp_path), task="question-answering")
            continue
        with pytest.raises(ExportError, match="starts and ends of answers") as caught:
            lc.plan(model=str(tmp_path), task="question-answering")
        assert caught.value.found == "num_labels: 3"
    # The last layer of Splinter's head is as wide as the model: what it gives is no label's.
    transformers.SplinterConfig(**SIZES, question_token_id=5).save_pretrained(tmp_path)
    lc.plan(model=str(tmp_path), task="question-answering")
