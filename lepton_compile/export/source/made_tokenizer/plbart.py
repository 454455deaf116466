"""PLBart's: a sentencepiece model whose pieces are numbered as fairseq does."""

from __future__ import annotations

from typing import Any, ClassVar

from lepton_compile.export.source.made_tokenizer.languages import Languages
from lepton_compile.export.source.made_tokenizer.pieces_file import read_pieces

__all__ = ["PLBart"]

LANGUAGES = {
    "base": ["java", "python", "en_XX"],
    "multi": ["java", "python", "en_XX", "javascript", "php", "ruby", "go"],
}


class PLBart(Languages):
    """The language of a text is a token behind it, where a file says which."""

    tidies = True
    files = ("sentencepiece.bpe.model",)
    roles: ClassVar[dict[str, str]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }

    def read(self) -> dict[str, int]:
        codes = self.listed(LANGUAGES, "base")
        language = self.told.get("src_lang") or ("en_XX" if codes == "multi" else None)
        self.behind = [] if language is None else [self.token_of(str(language).strip("_"))]
        self.pieces = read_pieces(self.folder / self.files[0])
        if self.pieces.names[:3] != (first := ["<unk>", "<s>", "</s>"]):
            found = ", ".join(self.pieces.names[:3])
            message = f"The pieces do not begin with {', '.join(first)}."
            raise self.wrong(self.files[0], message, found)
        words = ["<s>", "<pad>", "</s>", "<unk>", *self.pieces.names[3:], *self.languages]
        if codes == "base":
            words.append("<mask>")
        else:
            self.special.pop("mask_token", None)
        return {word: number for number, word in enumerate(words)}

    def post_processor(self) -> Any:
        return self.around([], [self.special["eos_token"], *self.behind])
