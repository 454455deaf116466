"""Tokenizers of GGUF files cut text as the file says."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lepton_compile.export.source import resolve

MERGES = ["1 2", "12 3", "123 4", "a b"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "granite")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cuts)
    words = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(MERGES)
    writer.add_tensor("token_embd.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer = resolve("m.gguf", tmp_path).tokenizer()
    assert tokenizer is not None
    ids = tokenizer("ab1234")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == expected
    assert tokenizer.decode(ids) == "ab1234"
