"""Tokens that a model's files name: those of transformers, whichever of its files has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, Gemma3Config
from transformers import Gemma3ForConditionalGeneration as Gemma3

from lepton_compile.export.generation import generation
from lepton_compile.export.generation_rules import left_out
from lepton_compile.export.source import resolve
from tests.small import llama, saved

TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id")
END, FIRST, FILL = ({name: number} for name, number in zip(TOKENS, (5, 6, 7), strict=True))
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("said") / "llama"
    saved("LlamaForCausalLM", llama(), folder)
    return folder


@pytest.fixture(scope="module")
def of_two_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose config.json has one of the part that writes within."""
    folder = tmp_path_factory.mktemp("said") / "gemma3"
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    text = {"vocab_size": 96, **SIZES, **heads}
    sees = {**SIZES, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    places = {"image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92}
    config = Gemma3Config(text_config=text, vision_config=sees, mm_tokens_per_image=4, **places)
    Gemma3(config).save_pretrained(folder)
    return folder


def write(folder: Path, own: Any, part: Any, told: Any) -> None:
    """Have config.json name these tokens alone, and generation_config.json be ``told``."""
    config = json.loads((folder / "config.json").read_text())
    for place, tokens in ((config, own), (config.get("text_config", {}), part)):
        for name in TOKENS:
            place.pop(name, None)
        place.update(tokens)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if told is not None:
        (folder / "generation_config.json").write_text(json.dumps(told))


def compare(folder: Path, model: Any) -> dict[str, Any]:
    """What we write into a manifest, where it is what ``model``, opened, writes with."""
    theirs = model.from_pretrained(folder).generation_config
    ours = generation(resolve(str(folder), folder))
    ends = theirs.eos_token_id
    assert ours["eos"] == ([] if ends is None else ends if isinstance(ends, list) else [ends])
    assert (ours["bos"], ours["pad"]) == (theirs.bos_token_id, theirs.pad_token_id)
    return ours


@pytest.mark.parametrize("told", [None, {}, FILL, {"eos_token_id": None}, {"eos_token_id": [8, 9]}])
@pytest.mark.parametrize("own", [{}, END, {**END, **FIRST, **FILL}, {"eos_token_id": None}])
def test_those_of_a_decoder(decoder: Path, own: Any, told: Any) -> None:
    write(decoder, own, {}, told)
    ours = compare(decoder, AutoModelForCausalLM)
    if told == FILL:
        assert ours["eos"] == [], "the file counts as a whole"


@pytest.mark.parametrize("told", [None, FIRST])
@pytest.mark.parametrize("part", [{}, {"eos_token_id": 9, "pad_token_id": 4}])
@pytest.mark.parametrize("own", [{}, END])
def test_those_of_a_part(of_two_parts: Path, own: Any, part: Any, told: Any) -> None:
    write(of_two_parts, own, part, told)
    compare(of_two_parts, AutoModelForImageTextToText)


@pytest.mark.parametrize(
    ("own", "told", "said"), [(END, FILL, True), (END, None, False), ({}, FILL, False)]
)
def test_an_end_that_does_not_count_is_told(decoder: Path, own: Any, told: Any, said: bool) -> None:
    write(decoder, own, {}, told)
    remarks = left_out(resolve(str(decoder), decoder), "text-generation")
    assert len(remarks) == int(said)
    assert all("eos_token_id [5] of config.json ends no answer" in remark for remark in remarks)
