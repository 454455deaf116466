"""That of M2M-100: the language of a text is a token before it."""

from __future__ import annotations

from typing import Any, ClassVar

from lepton_compile.export.source.made_tokenizer.numbered import Numbered

__all__ = ["M2M100"]

# In the order of their numbers, which follow those of vocab.json.
LANGUAGES = {
    "m2m100": "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga "
    "gd gl gu ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml "
    "mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn "
    "tr uk ur uz vi wo xh yi yo zh zu",
    "wmt21": "en ha is ja cs ru zh de",
}


class M2M100(Numbered):
    """Text after the token of ``src_lang``, which is English where no file says otherwise."""

    files = ("sentencepiece.bpe.model", "vocab.json")
    roles: ClassVar[dict[str, str]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }

    def read(self) -> dict[str, int]:
        codes = self.told.get("language_codes") or "m2m100"
        if not isinstance(codes, str) or codes not in LANGUAGES:
            raise self.wrong(
                "tokenizer_config.json",
                "The languages of the tokenizer are not known.",
                f"language_codes: {codes!r}",
                available=[*LANGUAGES],
            )
        self.languages = [f"__{code}__" for code in LANGUAGES[codes].split()]
        language = self.told.get("src_lang") or "en"
        self.language = f"__{language}__"
        if self.language not in self.languages:
            raise self.wrong(
                "tokenizer_config.json",
                "The tokenizer has no such language.",
                f"src_lang: {language!r}",
                available=[name.strip("_") for name in self.languages],
            )
        words = super().read()
        first = len(words)
        return {**words, **{name: first + n for n, name in enumerate(self.languages)}}

    def extra(self) -> list[str]:
        return [*self.languages, *(t for t in super().extra() if t not in self.languages)]

    def post_processor(self) -> Any:
        return self.around([self.language], [self.special["eos_token"]])
