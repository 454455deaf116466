"""A tokenizer that knows more tokens than the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.errors import SourceError
from tests.small import bert, byte_tokenizer, llama, saved

LETTERS = 4 + ord("z") - ord("!") + 1
"""A vocabulary that ends where the bytes of plain text do, and so without spaces."""


def _model(kind: str, words: int, folder: Path) -> Path:
    made = llama(vocab_size=words) if kind == "LlamaForCausalLM" else bert(vocab_size=words)
    saved(kind, made, folder)
    byte_tokenizer(folder)
    return folder


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "BertModel"])
@pytest.mark.parametrize(
    "options", [{}, {"check": False}, {"quantize": "int8"}], ids=["check", "verify", "int8"]
)
def test_a_text_with_tokens_that_the_model_lacks(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = _model(kind, LETTERS, tmp_path / "model")
    with pytest.raises(SourceError, match="not in the model's vocabulary") as caught:
        lc.build(model=str(model), output=tmp_path / "out", **options)
    assert str(caught.value.found).startswith(f"vocab_size: {LETTERS}, and token ")
    assert str(caught.value.found).endswith(("'Ġ'", "'Ċ'"))
    assert not (tmp_path / "out").exists()


def test_tokens_that_no_text_has_may_be_too_many(tmp_path: Path) -> None:
    """Gemma 3 1B has one for pictures, which it does not see."""
    model = _model("LlamaForCausalLM", 259, tmp_path / "model")
    lc.build(model=str(model), output=tmp_path / "out")
