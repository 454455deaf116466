"""Each rule of a generation config alone: greedy answers, and beams, are those of transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

import lepton_compile as lc
from lepton_compile.api import describe
from lepton_compile.export.generation import generation
from lepton_compile.export.generation_rules import left_out
from lepton_compile.export.source import resolve
from tests.api.test_pair_rules import PAIR_TOKENS, loud
from tests.api.test_pairs import SOURCES, TASK, listening
from tests.hostile.test_damaged_artifact import forge
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import outcomes
from tests.small import llama

NEW = 10
HOW: dict[str, Any] = {"verify": False, "check": False, "tactics": "default"}


@dataclass
class Case:
    """A model, and an artifact of it; ``task`` is what both do."""

    model: Any
    root: Path
    task: str

    def told(self, **rules: Any) -> dict[str, Any]:
        """A generation config."""
        tokens = PAIR_TOKENS if self.task == TASK else {"pad_token_id": 0, "eos_token_id": 1}
        return {**tokens, **rules}

    def expected(self, beams: int, told: dict[str, Any]) -> list[list[int]]:
        config = GenerationConfig(**told, num_beams=beams, max_new_tokens=NEW)
        self.model.generation_config = config
        made = [self._expected(source, config) for source in SOURCES]
        ends = told["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        return [
            row[: next((n for n, token in enumerate(row) if token in ends), NEW)] for row in made
        ]

    def _expected(self, source: list[int], config: Any) -> list[int]:
        ids = torch.tensor([source])
        found = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config
        )[0]
        return [int(token) for token in found[1 if self.task == TASK else len(source) :]]

    def found(self, beams: int, told: dict[str, Any], copy: Path) -> list[list[int]]:
        """What the artifact writes, had its model come with this generation config."""
        model = shutil.copytree(self.root / "model", copy / "model")
        (model / "generation_config.json").write_text(json.dumps(told))
        said = describe._generation(resolve(str(model), copy), copy, self.task)
        folder = shutil.copytree(self.root / "out", copy / "out")
        forge(folder, lambda manifest: manifest.update(generation=said))
        more = {"beams": beams} if self.task == TASK else {}
        with lc.load(folder) as loaded:
            return [row.tokens for row in loaded.generate(SOURCES, max_new_tokens=NEW, **more)]


@pytest.fixture(scope="module", params=["t5", "llama"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "t5":
        model, task = listening("t5", root / "model"), TASK
    else:
        torch.manual_seed(3)
        model, task = loud(LlamaForCausalLM(llama())), "text-generation"
        model.save_pretrained(root / "model")
    lc.build(model=str(root / "model"), output=root / "out", **HOW)
    return Case(model, root, task)


# What is told, by what is written without; the first is the rule.
ALONE: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "an end that is forced": lambda row: {"forced_eos_token_id": 1},
    "a forced token that is no end": lambda row: {"forced_eos_token_id": [33]},
    "words": lambda row: {"bad_words_ids": [row[1:3], [row[0], 2, 3]]},
    "of what was read": lambda row: {"encoder_no_repeat_ngram_size": 1},
    # which takes the place of the other
    "new tokens": lambda row: {
        "min_new_tokens": 5,
        "min_length": 40,
        "eos_token_id": [*range(1, 99, 2)],
    },
    "what begins": lambda row: {"begin_suppress_tokens": [row[0], row[2]]},
}
OF_BEAMS: dict[str, dict[str, Any]] = {
    "enough": {"early_stopping": True, "eos_token_id": [40, 13, 94, 10, 88, 43]},
    "what is left": {
        "renormalize_logits": True,
        "suppress_tokens": [n for n in range(0, 99, 3) if n % 5 != 1],
        "eos_token_id": [*range(1, 99, 5)],
    },
}


@pytest.mark.parametrize("name", [*ALONE, *OF_BEAMS])
def test_a_rule_alone(case: Case, name: str, tmp_path: Path) -> None:
    if name in OF_BEAMS and case.task != TASK:
        return  # a decoder has none
    row = max(case.expected(1, case.told()), key=len)
    rules = ALONE[name](row) if name in ALONE else OF_BEAMS[name]
    told = case.told(**rules)
    free = {key: value for key, value in told.items() if key != next(iter(rules))}
    for beams in (1, 3) if case.task == TASK else (1,):
        expected = case.expected(beams, told)
        assert case.found(beams, told, tmp_path / str(beams)) == expected
        if beams > 1 or name not in OF_BEAMS:
            assert expected != case.expected(beams, free), "the rule forbids nothing here"


def test_the_emitted_loader_has_all_of_them(tmp_path: Path) -> None:
    model = listening("t5", tmp_path / "model")
    told: dict[str, Any] = {**PAIR_TOKENS, "no_repeat_ngram_size": 2, "min_new_tokens": 4}
    told |= {"encoder_no_repeat_ngram_size": 2, "bad_words_ids": [[8, 46], [5]]}
    told |= {"forced_eos_token_id": 1, "begin_suppress_tokens": [87], "early_stopping": True}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(told))
    lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", **HOW)
    case = Case(model, tmp_path, TASK)
    with imported(tmp_path / "out" / "loader.py").load(tmp_path / "out") as loaded:
        for beams in (1, 3):
            found = loaded.generate(SOURCES, max_new_tokens=NEW, beams=beams)
            assert [row.tokens for row in found] == case.expected(beams, told)


def test_no_edit_of_them_ends_in_anything_but_a_refusal(tmp_path: Path) -> None:
    model = listening("t5", tmp_path / "model")
    told = {"bad_words_ids": [[8, 46]], "forced_eos_token_id": 1, "early_stopping": True}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(PAIR_TOKENS | told))
    del model
    folder = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", **HOW).path
    refused, other = outcomes(folder, imported(folder / "loader.py"), ("generation", "rules"))
    assert refused > 20
    assert other > 5


@pytest.mark.parametrize(
    ("task", "told", "said"),
    [
        (TASK, {}, []),
        (TASK, {"num_beams": 1, "max_length": 20, "sequence_bias": None}, []),
        (TASK, {"num_beams": 4, "length_penalty": 2.0}, ["num_beams 4, length_penalty 2.0: each"]),
        (TASK, {"temperature": 0.6}, []),  # nothing is drawn
        (
            "text-generation",
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "typical_p": 0.9},
            ["do_sample True, temperature 0.6, top_k 20: each", "typical_p 0.9: left out"],
        ),
        (
            "text-generation",
            {"repetition_penalty": 1.1, "num_beams": 4, "forced_bos_token_id": 5},
            ["repetition_penalty 1.1: each", "num_beams 4, forced_bos_token_id 5: left out"],
        ),
        (TASK, {"early_stopping": "never"}, ["early_stopping 'never': left out"]),
        (TASK, {"sequence_bias": [[[5], -1.5]]}, ["sequence_bias [[[5], -1.5]]: left out"]),
        (
            "automatic-speech-recognition",
            {"repetition_penalty": 1.1, "max_length": 448},
            ["repetition_penalty 1.1: left out"],
        ),
        ("feature-extraction", {"num_beams": 4}, []),
    ],
)
def test_what_is_left_out_is_told(
    task: str, told: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    listening("t5", tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(PAIR_TOKENS | told))
    found = left_out(resolve(str(tmp_path), tmp_path), task)
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))


def test_a_build_tells_it_and_a_plan(tmp_path: Path) -> None:
    listening("t5", tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    file.write_text(json.dumps(PAIR_TOKENS | {"repetition_penalty": 1.3}))
    told = "the generation config has repetition_penalty 1.3: each call has to ask for it"
    assert told in lc.plan(model=str(tmp_path / "model")).notes
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", **HOW)
    assert told in json.loads((built.path / "report.json").read_text())["remarks"]


def test_config_json_says_them_where_there_is_no_other_file_alone(tmp_path: Path) -> None:
    """As transformers has it, which then reads nothing else of how to generate."""
    listening("t5", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"no_repeat_ngram_size": 3}))
    file = tmp_path / "generation_config.json"
    for text, rules in (("{}", None), (None, {"apart": 3})):
        file.write_text(text) if text else file.unlink()
        assert generation(resolve(str(tmp_path), tmp_path)).get("rules") == rules


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_engines_are_judged_by_what_they_would_choose(name: str, tmp_path: Path) -> None:
    """A token that a rule takes is not the reference's choice: builds missed their own demand."""
    told = {"no_repeat_ngram_size": 1, "forced_eos_token_id": 33}
    if name == "t5":
        listening("t5", tmp_path / "model")
        told |= PAIR_TOKENS
    else:
        torch.manual_seed(3)
        loud(LlamaForCausalLM(llama())).save_pretrained(tmp_path / "model")
        told |= {"eos_token_id": 1, "suppress_tokens": [*range(0, 99, 3)]}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(told))
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", tactics="default")
    assert json.loads((built.path / "report.json").read_text())["verify"]["decode_agreement"] == 1.0
    with lc.load(built.path) as loaded:
        assert len({*loaded.generate([5, 6], max_new_tokens=8).tokens}) == 8
