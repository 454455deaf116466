"""Which tokens texts begin and end with, as a model's files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.generation import answers, generation
from lepton_compile.export.source import Source, resolve
from tests.export import gguf_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    gguf_files.tiny_model("llama").save_pretrained(path)
    return path


def opened(folder: Path) -> Source:
    return resolve(str(folder), folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eos_token_id", "abc"),
        ("eos_token_id", [2, None]),
        ("eos_token_id", True),
        ("eos_token_id", float("nan")),
        ("bos_token_id", {}),
        ("pad_token_id", [1, 2]),
        ("pad_token_id", 0.5),
    ],
)
def test_ids_of_tokens_that_are_none(name: str, value: Any, folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(SourceError, match=f"{name} is no number of a token") as caught:
        lc.plan(model=str(folder))
    assert caught.value.where == str(folder / "generation_config.json")


def test_ids_that_the_model_has_no_token_for_are_left_out(folder: Path) -> None:
    given = {"eos_token_id": [-1, 7, 96, 1 << 70], "bos_token_id": 1 << 70, "pad_token_id": -1}
    (folder / "generation_config.json").write_text(json.dumps(given))
    found = generation(opened(folder))
    assert found == {"eos": [7], "bos": None, "pad": None, "vocabulary": 96}


def test_generation_config_counts_as_a_whole(folder: Path) -> None:
    assert generation(opened(folder))["eos"] == [2]
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 8], "pad_token_id": 5}')
    assert generation(opened(folder)) == {"eos": [7, 8], "bos": None, "pad": 5, "vocabulary": 96}


@pytest.mark.parametrize(
    ("given", "start", "never"),
    [
        ({}, [1], []),  # what stands for the beginning is that of texts
        ({"decoder_start_token_id": 5}, [5], []),
        ({"decoder_start_token_id": 5, "forced_bos_token_id": 9}, [5, 9], []),
        ({"decoder_start_token_id": 5, "forced_bos_token_id": 96}, [5], []),
        ({"suppress_tokens": [8, 4], "bad_words_ids": [[7], [4], [2, 3]]}, [1], [4, 7, 8]),
        ({"suppress_tokens": None, "bad_words_ids": [["a"], 3, [-1]]}, [1], []),
        # What ends a text may be written though it is a bad word, as with transformers.
        (
            {"suppress_tokens": [8], "bad_words_ids": [[7], [8], [9]], "eos_token_id": [7, 8]},
            [1],
            [8, 9],
        ),
    ],
)
def test_what_answers_begin_with_and_never_have(
    given: dict[str, Any], start: list[int], never: list[int], folder: Path
) -> None:
    given = {"bos_token_id": 1, **given}
    (folder / "generation_config.json").write_text(json.dumps(given))
    assert answers(opened(folder)) == {"start": start, "never": never}
    assert generation(opened(folder)).get("never", []) == never


def test_answers_that_end_with_what_they_are_forced_to_begin_with(folder: Path) -> None:
    """transformers writes nothing then, and a loader would go on."""
    told = {"decoder_start_token_id": 2, "forced_bos_token_id": 8, "eos_token_id": [2, 8]}
    (folder / "generation_config.json").write_text(json.dumps(told))
    with pytest.raises(SourceError, match="Each answer ends with the token") as caught:
        answers(opened(folder))
    assert "forced_bos_token_id 8, which is an eos_token_id, too" in str(caught.value)
    (folder / "generation_config.json").write_text(json.dumps(told | {"eos_token_id": 2}))
    assert answers(opened(folder))["start"] == [2, 8]  # what stands for the beginning may end


@pytest.mark.parametrize("name", ["no_repeat_ngram_size", "min_length"])
@pytest.mark.parametrize("value", ["x", -1])
def test_rules_of_a_decoder_are_looked_at_first(name: str, value: Any, folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(SourceError, match=f"{name} is no number of tokens"):
        lc.plan(model=str(folder))
