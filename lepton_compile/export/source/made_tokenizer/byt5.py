"""ByT5's: a token for each byte."""

from __future__ import annotations

from typing import Any, ClassVar

from lepton_compile.export.source.made_tokenizer.base import Slow

__all__ = ["ByT5"]

SENTINELS = 125
"""Tokens that stand for what is left out of a text, where no file says how many there are."""


class ByT5(Slow):
    """No file has its vocabulary: special tokens, the bytes in order, then the sentinels."""

    files = ("tokenizer_config.json",)
    roles: ClassVar[dict[str, str]] = {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }

    def read(self) -> dict[str, int]:
        first = [self.special[role] for role in self.roles]
        self.trimming = frozenset(first)
        alphabet = _bytes()
        return {word: number for number, word in enumerate([*first, *alphabet])}

    def extra(self) -> list[str]:
        count = self.told.get("extra_ids", SENTINELS)
        if type(count) is not int or count < 0:
            raise self.wrong(
                "tokenizer_config.json",
                "The number of sentinels cannot be read.",
                f"extra_ids: {count!r}",
                available=["a number from 0 on"],
            )
        return super().extra() or [f"<extra_id_{number}>" for number in range(count)]

    def parts(self) -> dict[str, Any]:
        from tokenizers import decoders, pre_tokenizers

        # An answer can end within a character: what is no text is left out of it.
        whole = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("\ufffd", "")])
        model: dict[str, Any] = {"type": "BPE", "vocab": self.ids, "merges": [], "unk_token": None}
        nothing = dict.fromkeys(["dropout", "continuing_subword_prefix", "end_of_word_suffix"])
        return {
            "model": {**model, **nothing, "fuse_unk": False, "byte_fallback": False},
            "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            "post_processor": self.around([], [self.special["eos_token"]]),
            "decoder": whole,
        }


def _bytes() -> list[str]:
    """How the library writes each byte, in order: those that can be printed as themselves, the
    others as the characters after the first 256."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]
