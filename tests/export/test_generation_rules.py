"""What of a generation config is kept in a manifest, what each call asks for, and what is told."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from lepton_compile.export.encoder_decoder import PAIRS, READS, SPEECH
from lepton_compile.export.generation_rules import left_out, never, rules
from lepton_compile.export.generation_said import Said
from lepton_compile.export.source import Source, resolve
from tests.small import llama

WRITES = "text-generation"
TASKS = (WRITES, *PAIRS)
ASKED, LEFT = "each call has to ask for it", "left out, no loader does it"

# What is told of a value, by what the model does; of all others nothing.
TOLD: dict[str, tuple[Any, dict[str, str]]] = {
    "repetition_penalty": (1.5, {WRITES: ASKED, READS: ASKED, SPEECH: LEFT}),
    "stop_strings": (["."], {WRITES: ASKED, READS: ASKED, SPEECH: LEFT}),
    "max_new_tokens": (7, {WRITES: ASKED, READS: ASKED}),
    "max_length": (21, {WRITES: ASKED, READS: ASKED}),
    "num_beams": (2, {WRITES: LEFT, READS: ASKED, SPEECH: LEFT}),
    "early_stopping": ("never", {READS: LEFT}),
    "forced_bos_token_id": (5, {WRITES: LEFT}),
    "sequence_bias": ([[[5], -1.5]], dict.fromkeys(TASKS, LEFT)),
    "exponential_decay_length_penalty": ([5, 1.5], dict.fromkeys(TASKS, LEFT)),
    "encoder_repetition_penalty": (1.5, dict.fromkeys(TASKS, LEFT)),
    "guidance_scale": (1.5, dict.fromkeys(TASKS, LEFT)),
    "watermarking_config": ({"bias": 2.0}, dict.fromkeys(TASKS, LEFT)),
    "force_words_ids": ([[5]], dict.fromkeys(TASKS, LEFT)),
    "constraints": (["all"], dict.fromkeys(TASKS, LEFT)),
    "penalty_alpha": (0.5, dict.fromkeys(TASKS, LEFT)),
    "dola_layers": ("high", dict.fromkeys(TASKS, LEFT)),
    "diversity_penalty": (0.5, dict.fromkeys(TASKS, LEFT)),
    "num_beam_groups": (2, dict.fromkeys(TASKS, LEFT)),
    "token_healing": (True, dict.fromkeys(TASKS, LEFT)),
    "max_time": (0.5, dict.fromkeys(TASKS, LEFT)),
}
# What changes an answer only where it is drawn, or where several are looked for.
DRAWN: dict[str, tuple[Any, dict[str, str]]] = {
    "do_sample": (True, {WRITES: ASKED, READS: ASKED, SPEECH: ASKED}),
    "temperature": (0.5, {WRITES: ASKED, READS: ASKED, SPEECH: ASKED}),
    "top_k": (5, {WRITES: ASKED, READS: ASKED}),
    "top_p": (0.5, {WRITES: ASKED, READS: ASKED}),
    "min_p": (0.5, {WRITES: ASKED, READS: ASKED}),
    "typical_p": (0.5, dict.fromkeys(TASKS, LEFT)),
    "epsilon_cutoff": (0.5, dict.fromkeys(TASKS, LEFT)),
    "eta_cutoff": (0.5, dict.fromkeys(TASKS, LEFT)),
    "top_h": (0.5, dict.fromkeys(TASKS, LEFT)),
}
OF_BEAMS = {"length_penalty": (2.0, {WRITES: LEFT, READS: ASKED, SPEECH: LEFT})}
ALL = {**TOLD, **DRAWN, **OF_BEAMS}
# Values that change nothing, which many a model is released with.
NEUTRAL = {
    "repetition_penalty": 1.0, "max_length": 20, "num_beams": 1, "length_penalty": 1.0,
    "encoder_repetition_penalty": 1.0, "guidance_scale": 1.0, "diversity_penalty": 0.0,
    "num_beam_groups": 1, "do_sample": False, "typical_p": 1.0, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "early_stopping": False, "stop_strings": [], "sequence_bias": {},
    "token_healing": False,
}  # fmt: skip
# What an artifact holds answers to, or is a token; and what changes no answer, or how it is found.
HELD = {
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "min_length",
    "min_new_tokens", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
    "renormalize_logits", "decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_id",
}  # fmt: skip
NO_MATTER = {
    "use_mtp", "use_cache", "cache_implementation", "cache_config", "max_cache_len",
    "remove_invalid_values", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
    "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size",
    "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "assistant_ensemble_weight", "speculation_type", "compile_config", "disable_compile",
    "continuous_batching_config", "low_memory", "prefill_chunk_size", "transformers_version",
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("rules")
    llama(architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    return resolve(str(folder), folder, weights=False)


def having(source: Source, told: dict[str, Any]) -> Source:
    """It, with such a generation config."""
    text = json.dumps({"eos_token_id": 1, **told})
    (source.path / "generation_config.json").write_text(text)
    return source


def expected(told: dict[str, Any], task: str, what: str) -> set[str]:
    """Names that a sentence on ``what`` has."""
    given = {name: by.get(task) for name, (value, by) in ALL.items() if told.get(name) == value}
    names = {name for name, by_task in given.items() if by_task == what}
    if told.get("do_sample") is not True:
        names -= {*DRAWN}
    return names if told.get("num_beams") == ALL["num_beams"][0] else names - {*OF_BEAMS}


def check_told(source: Source, told: dict[str, Any], task: str) -> None:
    """Each value is told, once, where it belongs."""
    sentences = left_out(having(source, told), task)
    for what in (ASKED, LEFT):
        names = expected(told, task, what)
        found = [sentence for sentence in sentences if sentence.endswith(what)]
        assert len(found) == bool(names)
        said = {name for name in ALL for sentence in found if re.search(rf"\b{name} ", sentence)}
        assert said == names
        assert all(f"{name} {told[name]!r}" in found[0] for name in names)
        sentences = [sentence for sentence in sentences if sentence not in found]
    assert sentences == []


VALUES = {
    name: st.sampled_from([value, value, None, NEUTRAL.get(name)])
    for name, (value, _) in ALL.items()
}


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional=VALUES), st.sampled_from(TASKS))
def test_each_value_that_changes_answers_is_told(
    source: Source, told: dict[str, Any], task: str
) -> None:
    check_told(source, told, task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("left", [None, *ALL])
def test_all_of_them_but_one(source: Source, left: str | None, task: str) -> None:
    """And that one as it changes nothing."""
    told = {name: value for name, (value, _) in ALL.items() if name != left}
    check_told(source, told | {str(left): NEUTRAL.get(str(left))}, task)


def test_nothing_that_transformers_knows_is_overlooked() -> None:
    """A name that is new there changes answers, or does not: it belongs into one of the tables."""
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert known - {*ALL} - HELD - NO_MATTER == set()


def test_a_model_that_writes_nothing_is_told_nothing(source: Source) -> None:
    told = {"num_beams": 2, "guidance_scale": 1.5}
    assert left_out(having(source, told), "feature-extraction") == []


WORDS = {"bad_words_ids": [[3], [1], [4, 5], [6, 99], [-1], [], "7", 7, [True, 8], [9]]}


@pytest.mark.parametrize("told", [WORDS, {**WORDS, "eos_token_id": [2, 9, 3]}])
def test_words_that_are_never_written(source: Source, told: dict[str, Any]) -> None:
    """One token alone is never written, unless it ends texts; what is no text is left out."""
    ends = told.get("eos_token_id", [1])
    said = Said(having(source, {**told, "suppress_tokens": [20, 5, 99, -1]}))
    assert never(said) == sorted({5, 20, *({1, 3, 9} - {*ends})})
    assert rules(said, WRITES)["rules"]["words"] == [[4, 5]]


@pytest.mark.parametrize("none", [None, 5, "5", {"5": 5}])
def test_words_that_are_none(source: Source, none: Any) -> None:
    said = Said(having(source, {"bad_words_ids": none}))
    assert never(said) == []
    assert rules(said, WRITES) == {}


@pytest.mark.parametrize(
    ("told", "kept", "but"),
    [
        ({"no_repeat_ngram_size": 2}, {"apart": 2}, {}),
        ({"min_length": 9}, {"least": 9}, {}),
        ({"min_new_tokens": 5}, {"least_new": 5}, {READS: {"least": 6}}),
        ({"min_new_tokens": 5, "min_length": 9}, {"least_new": 5}, {READS: {"least": 6}}),
        ({"min_new_tokens": 0, "min_length": 9}, {"least": 9}, {}),
        ({"forced_eos_token_id": [1, 7]}, {"last": [1, 7]}, {}),
        ({"encoder_no_repeat_ngram_size": 3}, {"source_apart": 3}, {SPEECH: None}),
        ({"early_stopping": True}, None, {READS: {"early": True}}),
        ({"early_stopping": "never"}, None, {}),
        ({"renormalize_logits": True}, None, {READS: {"renormalize": True}}),
        ({"renormalize_logits": 1}, None, {}),
        ({"no_repeat_ngram_size": 0, "forced_eos_token_id": None, "min_length": None}, None, {}),
    ],
)
def test_what_answers_are_held_to(
    source: Source, told: dict[str, Any], kept: dict[str, Any] | None, but: dict[str, Any]
) -> None:
    for task in TASKS:
        wanted = but.get(task, kept)
        found = rules(Said(having(source, told)), task)
        assert found == ({} if wanted is None else {"rules": wanted})
