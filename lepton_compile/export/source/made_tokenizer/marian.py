"""Marian's: sentencepiece cuts the text, and vocab.json numbers what it is cut into."""

from __future__ import annotations

from typing import Any, ClassVar

from lepton_compile.export.source.made_tokenizer.numbered import Numbered

__all__ = ["Marian"]


class Marian(Numbered):
    """One for two languages or more; ``>>fra<<`` before a text says which one it is to be in."""

    files = ("source.spm", "target.spm", "vocab.json")
    roles: ClassVar[dict[str, str]] = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }

    def read(self) -> dict[str, int]:
        if self.told.get("separate_vocabs"):
            raise self.wrong(
                "tokenizer_config.json",
                "A tokenizer.json has one vocabulary, and this tokenizer two.",
                "separate_vocabs: true",
                hint="Build it without the tokenizer's files: the engine takes and gives ids.",
            )
        return super().read()

    def whole_words(self) -> list[str]:
        return [word for word in self.ids if word.startswith(">>") and word.endswith("<<")]

    def post_processor(self) -> Any:
        return self.around([], [self.special["eos_token"]])
