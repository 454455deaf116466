"""Tokenizers of GGUF files cut text as the file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lepton_compile.export.source import resolve

MERGES = ["1 2", "12 3", "123 4", "a b"]
BEGIN = "<|begin_of_text|>"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tokenizer_of(folder: Path, cuts: str, *more: str, begins: bool | None = None) -> Any:
    """That of a file of GPT-2's kind, with ``more`` words that no merge leads to."""
    writer = gguf.GGUFWriter(folder / "m.gguf", "granite")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cuts)
    merged = [merge.replace(" ", "") for merge in MERGES]
    words = [*bytes_to_unicode().values(), *merged, *more, BEGIN]
    writer.add_token_list(words)
    writer.add_token_types([1] * (len(words) - 1) + [3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(len(words) - 1)
    if begins is not None:
        writer.add_add_bos_token(begins)
    writer.add_tensor("token_embd.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer = resolve("m.gguf", folder).tokenizer()
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ("gpt-2", ["ab", "1234"]),
        ("exaone4", ["ab", "1234"]),
        ("glm4", ["ab", "123", "4"]),
        ("stablelm2", ["ab", "1", "2", "3", "4"]),
        ("refact", ["ab", "1", "2", "3", "4"]),
        ("command-r", ["ab", "1", "2", "3", "4"]),
    ],
)
def test_numbers_are_cut_as_the_file_says(tmp_path: Path, cuts: str, expected: list[str]) -> None:
    tokenizer = tokenizer_of(tmp_path, cuts)
    ids = tokenizer("ab1234")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == expected
    assert tokenizer.decode(ids) == "ab1234"


@pytest.mark.parametrize(
    ("cuts", "begins", "expected"),
    [
        ("llama-bpe", None, [BEGIN, "whole"]),
        ("lfm2", None, [BEGIN, "whole"]),
        ("tekken", None, [BEGIN, "whole"]),
        ("llama-bpe", False, ["whole"]),
        ("chameleon", None, [BEGIN, *"whole"]),
        ("youtu", None, ["whole"]),
        ("qwen2", None, [*"whole"]),
        ("qwen2", True, [BEGIN, *"whole"]),
    ],
)
def test_texts_begin_and_words_stay_whole_by_the_name_of_the_cuts(
    tmp_path: Path, cuts: str, begins: bool | None, expected: list[str]
) -> None:
    tokenizer = tokenizer_of(tmp_path, cuts, "whole", begins=begins)
    assert tokenizer.convert_ids_to_tokens(tokenizer("whole")["input_ids"]) == expected
