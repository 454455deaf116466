"""Tokenizers with a token for each language, which stands beside a text that is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lepton_compile.export.source.made_tokenizer.cut import Cut

__all__ = ["Languages"]


class Languages(Cut):
    """One whose files name a list of languages, and the one that texts are in.

    Attributes:
        languages: their tokens, in the order of their numbers.
    """

    languages: Sequence[str] = ()

    def listed(self, lists: Mapping[str, Sequence[str]], usual: str) -> str:
        """Take the languages of the list that is named, or of the ``usual`` one; returns its name.

        Raises:
            SourceError: no list has this name.
        """
        codes = self.told.get("language_codes") or usual
        if not isinstance(codes, str) or codes not in lists:
            raise self.wrong(
                "tokenizer_config.json",
                "The languages of the tokenizer are not known.",
                f"language_codes: {codes!r}",
                available=[*lists],
            )
        self.languages = [f"__{code}__" for code in lists[codes]]
        return codes

    def token_of(self, language: object) -> str:
        """The token of a language.

        Raises:
            SourceError: it is none of the listed.
        """
        token = f"__{language}__"
        if token not in self.languages:
            raise self.wrong(
                "tokenizer_config.json",
                "The tokenizer has no such language.",
                f"src_lang: {self.told.get('src_lang')!r}",
                available=[each.removeprefix("__").removesuffix("__") for each in self.languages],
            )
        return token

    def extra(self) -> list[str]:
        return [*self.languages, *(t for t in super().extra() if t not in self.languages)]
