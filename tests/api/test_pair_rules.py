"""What a model's generation config forbids in its answers: those of transformers, then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.generation import generation
from lepton_compile.export.source import resolve
from lepton_compile.runtime.loader_rules import check_rules, rule_out
from lepton_compile.runtime.loader_source import Begun
from tests.api.test_pairs import SOURCES, listening
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import outcomes
from tests.small import llama

NEW = 12
PAIR_TOKENS = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
RULES = {"no_repeat_ngram_size": 2, "min_length": 9}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model that repeats itself, and ends early, if it is let."""
    root = tmp_path_factory.mktemp("rules")
    model = listening("t5", root / "model")
    # Tokens that are written again and again end an answer: each of them is an end.
    told = {"decoder_start_token_id": 0, "eos_token_id": [40, 65, 87], "pad_token_id": 0, **RULES}
    (root / "model" / "generation_config.json").write_text(json.dumps(told))
    built = lc.build(
        model=str(root / "model"), output=root / "out", verify=False, check=False, tactics="default"
    )
    return model, built.path


def _expected(model: Any, beams: int, **rules: int) -> list[list[int]]:
    ends = [40, 65, 87]
    config = GenerationConfig(
        num_beams=beams, max_new_tokens=NEW, decoder_start_token_id=0, eos_token_id=ends,
        pad_token_id=0, do_sample=False, **rules,
    )  # fmt: skip
    model.generation_config = config
    found = []
    for source in SOURCES:
        tokens = model.generate(torch.tensor([source]), generation_config=config)[0, 1:].tolist()
        ended = next((at for at, token in enumerate(tokens) if token in ends), NEW)
        found.append(tokens[:ended])
    return found


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_transformers(ruled: tuple[Any, Path], beams: int) -> None:
    model, built = ruled
    expected, free = _expected(model, beams, **RULES), _expected(model, beams)
    assert expected != free, "the rules forbid nothing here"
    assert json.loads((built / "manifest.json").read_text())["generation"]["rules"] == {
        "apart": 2,
        "least": 9,
    }
    for opened in (lc.load(built), imported(built / "loader.py").load(built)):
        with opened as loaded:
            found = loaded.generate(SOURCES, max_new_tokens=NEW, beams=beams)
            assert [row.tokens for row in found] == expected


def test_a_loader_has_them_where_they_are_needed(ruled: tuple[Any, Path], tmp_path: Path) -> None:
    _, built = ruled
    assert "def rule_out" in (built / "loader.py").read_text()
    listening("t5", tmp_path / "model")
    plain = lc.build(
        model=str(tmp_path / "model"),
        output=tmp_path / "out",
        verify=False,
        check=False,
        tactics="default",
    )
    assert plain.manifest.generation is not None
    assert "rules" not in plain.manifest.generation
    assert "rule_out" not in (plain.path / "loader.py").read_text()


# Of tokens that it would write.
DECODER = {
    "eos_token_id": [40, 65],
    "pad_token_id": 0,
    "no_repeat_ngram_size": 2,
    "min_length": 12,
    "suppress_tokens": [95],
    "bad_words_ids": [[64], [40]],
}


def loud(model: Any) -> Any:
    """With weights that are large enough for answers to depend on what was given."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3 if weight.ndim > 1 else weight)
    return model.eval()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A decoder that the config says as much of; its answers depend on what it was given."""
    root = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(3)
    model = loud(LlamaForCausalLM(llama()))
    model.save_pretrained(root / "model")
    (root / "model" / "generation_config.json").write_text(json.dumps(DECODER))
    how: dict[str, Any] = {"verify": False, "check": False, "tactics": "default"}
    return model, lc.build(model=str(root / "model"), output=root / "out", **how).path


@pytest.mark.parametrize("penalty", [1.0, 0.7])
def test_a_decoder_goes_on_as_that_of_transformers(
    decoder: tuple[Any, Path], penalty: float
) -> None:
    """Its prompt counts."""
    model, built = decoder
    ends = {name: DECODER[name] for name in ("eos_token_id", "pad_token_id")}
    ruled, free = (_continued(model, told, penalty) for told in (DECODER, ends))
    assert ruled != free, "the rules forbid nothing here"
    for opened in (lc.load(built), imported(built / "loader.py").load(built)):
        with opened as loaded:
            found = loaded.generate(SOURCES, max_new_tokens=20, repetition_penalty=penalty)
            assert [row.tokens for row in found] == ruled


def _continued(model: Any, told: dict[str, Any], penalty: float) -> list[list[int]]:
    config = GenerationConfig(**told, max_new_tokens=20, repetition_penalty=penalty)
    model.generation_config = config
    found = []
    for source in SOURCES:
        given = torch.tensor([source])
        how = {"attention_mask": torch.ones_like(given), "generation_config": config}
        tokens = model.generate(given, **how)[0, len(source) :].tolist()
        ended = next((at for at, token in enumerate(tokens) if token in told["eos_token_id"]), 20)
        found.append(tokens[:ended])
    return found


def test_edited_rules_of_a_decoder_are_refused_or_do_not_matter(
    decoder: tuple[Any, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(decoder[1], tmp_path / "copy")
    refused, other = outcomes(folder, imported(folder / "loader.py"), ("generation",))
    assert refused > 20
    assert other > 10


def _banned(rules: dict[str, Any], seen: list[int], source: list[int] | None = None) -> set[int]:
    """Of ten tokens, with all behind the first that is seen new."""
    told: dict[str, Any] = {"vocabulary": 10, "eos": [8, 9], "rules": dict(rules)}
    check_rules(told)
    ids = Begun(seen[:1])
    ids.source = source or []
    scores = np.zeros(10, np.float32)
    rule_out(told, scores, SimpleNamespace(ids=ids, limit=5), seen[1:])
    return {int(token) for token in np.flatnonzero(np.isneginf(scores))}


@pytest.mark.parametrize(
    ("apart", "seen", "banned"),
    [
        (1, [0, 5, 7], {0, 5, 7}),
        (2, [0, 5, 7, 5], {7}),
        (3, [1, 2, 3, 1, 2], {3}),
        (3, [1, 2], set()),
        (9, [1, 2, 3], set()),
        (0, [1, 1, 1], set()),
    ],
)
def test_what_would_be_said_twice(apart: int, seen: list[int], banned: set[int]) -> None:
    assert _banned({"apart": apart}, seen) == banned


def test_no_end_before_the_least() -> None:
    for seen, ended in (([0] * 3, True), ([0] * 4, False)):
        assert _banned({"least": 4}, seen) == ({8, 9} if ended else set())


def test_no_end_before_so_many_are_new() -> None:
    for seen, ended in (([0] * 4, True), ([0] * 5, False)):
        assert _banned({"least_new": 4}, seen) == ({8, 9} if ended else set())


@pytest.mark.parametrize(
    ("size", "seen", "banned"),
    [(1, [0], {3, 4, 5}), (2, [0, 3], {4, 5}), (3, [3, 4], {3}), (3, [0], set()), (9, [3], set())],
)
def test_what_its_source_says(size: int, seen: list[int], banned: set[int]) -> None:
    assert _banned({"source_apart": size}, seen, [3, 4, 3, 5]) == banned


@pytest.mark.parametrize(
    ("seen", "banned"), [([0], set()), ([1], {2, 5}), ([0, 1], {2, 5}), ([4, 3, 1], {2, 5, 6})]
)
def test_words_of_several_tokens(seen: list[int], banned: set[int]) -> None:
    assert _banned({"words": [[1, 2], [3, 1, 6], [1, 5]]}, seen) == banned


def test_the_last_token_is_the_one_that_is_forced() -> None:
    others = {*range(10)} - {7}
    for seen, banned in (([0] * 4, set()), ([0] * 5, others)):
        assert _banned({"last": [7], "words": [[7]]}, seen) - {7} == banned


def test_numbers_that_are_none(tmp_path: Path) -> None:
    listening("bart", tmp_path)
    for value in ("2", -1, 1.5, True, 1 << 40):
        told = {"decoder_start_token_id": 2, "no_repeat_ngram_size": value}
        (tmp_path / "generation_config.json").write_text(json.dumps(told))
        with pytest.raises(SourceError, match="no_repeat_ngram_size is no number of tokens"):
            generation(resolve(str(tmp_path), tmp_path))
