"""M2M-100's: the language of a text is a token before it."""

from __future__ import annotations

from typing import Any, ClassVar

from lepton_compile.export.source.made_tokenizer.languages import Languages
from lepton_compile.export.source.made_tokenizer.numbered import Numbered

__all__ = ["M2M100"]

# In the order of their numbers, which follow those of vocab.json.
LANGUAGES = {
    name: codes.split()
    for name, codes in {
        "m2m100": "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy "
        "ga gd gl gu ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv "
        "mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw "
        "ta th tl tn tr uk ur uz vi wo xh yi yo zh zu",
        "wmt21": "en ha is ja cs ru zh de",
    }.items()
}


class M2M100(Languages, Numbered):
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
        self.listed(LANGUAGES, "m2m100")
        self.language = self.token_of(self.told.get("src_lang") or "en")
        words = super().read()
        first = len(words)
        return {**words, **{name: first + n for n, name in enumerate(self.languages)}}

    def post_processor(self) -> Any:
        return self.around([self.language], [self.special["eos_token"]])
