"""What the kinds of tokenizers have in common: their settings, special tokens and outer form."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lepton_compile.errors import SourceError
from lepton_compile.export.source.objects import HINT

__all__ = ["Slow"]

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What was said to the class that is replaced, or is part of what is written.
DROPPED = (
    "added_tokens_decoder",
    "additional_special_tokens",
    "extra_ids",
    "extra_special_tokens",
    "sp_model_kwargs",
)


class Slow(ABC):
    """A tokenizer without a fast form. Making one reads its files and raises SourceError.

    Attributes:
        files: names of the files that it is made of.
        roles: special tokens by role that the class has where no file says otherwise.
        trimming: special tokens that take the spaces around them.
        ids: the number of each token.
    """

    files: ClassVar[tuple[str, ...]]
    roles: ClassVar[Mapping[str, str]]
    trimming: frozenset[str] = frozenset()

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        self.folder, self.told = folder, told
        given = {role: _text(told[role]) for role in ROLES if role in told}
        self.special = {k: v for k, v in {**self.roles, **given}.items() if v is not None}
        self.ids = self.read()
        self.add(*self.special.values(), *self.extra())

    @abstractmethod
    def read(self) -> dict[str, int]:
        """The vocabulary, numbered from 0 without gaps."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Of a tokenizer.json: model, normalizer, and so on, as objects of ``tokenizers``."""

    def extra(self) -> list[str]:
        """Special tokens without a role."""
        listed: list[Any] = []
        for name in ("additional_special_tokens", "extra_special_tokens"):
            found = self.told.get(name) or []
            listed += found.values() if isinstance(found, dict) else found
        texts = [_text(each) for each in listed]
        return [text for text in texts if text]

    def whole_words(self) -> list[str]:
        """Tokens that are not special, but found before text is cut."""
        return []

    def add(self, *tokens: str) -> None:
        """Number tokens that the vocabulary lacks after all others."""
        for token in tokens:
            self.ids.setdefault(token, len(self.ids))

    def settings(self) -> dict[str, Any]:
        """The contents of tokenizer_config.json."""
        kept = {name: value for name, value in self.told.items() if name not in DROPPED}
        return {**kept, **self.special, "tokenizer_class": "PreTrainedTokenizerFast"}

    def whole(self) -> dict[str, Any]:
        """The contents of tokenizer.json."""
        from tokenizers import Tokenizer
        from tokenizers.models import BPE

        shell, parts = Tokenizer(BPE()), self.parts()
        model = parts.pop("model")
        for name, part in parts.items():
            setattr(shell, name, part)
        special = {*self.special.values(), *self.extra()}
        added = [
            {
                "id": self.ids[token],
                "content": token,
                "single_word": False,
                "lstrip": token in self.trimming,
                "rstrip": token in self.trimming,
                "normalized": False,
                "special": token in special,
            }
            for token in sorted({*special, *self.whole_words()}, key=self.ids.__getitem__)
        ]
        return {**json.loads(shell.to_str()), "added_tokens": added, "model": model}

    def around(self, before: list[str], after: list[str]) -> Any:
        """What puts special tokens around a text, or two of them after each other."""
        from tokenizers.processors import TemplateProcessing

        single = [*before, "$A", *after]
        names = {*before, *after}
        return TemplateProcessing(
            single=single,
            pair=[*before, "$A", "$B", *after],
            special_tokens=[(name, self.ids[name]) for name in sorted(names)],
        )

    def wrong(self, file: str, message: str, found: object, **more: Any) -> SourceError:
        """An error that names a file of the tokenizer."""
        place = str(self.folder / file)
        return SourceError(message, where=place, found=f"{found!s:.80}", **{"hint": HINT, **more})


def _text(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
