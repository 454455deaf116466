"""Tokenizers of a sentencepiece model whose pieces a vocab.json numbers."""

from __future__ import annotations

from lepton_compile.export.source.made_tokenizer.cut import Cut
from lepton_compile.export.source.made_tokenizer.pieces_file import read_pieces
from lepton_compile.export.source.made_tokenizer.vocabulary import read_vocabulary

__all__ = ["Numbered"]


class Numbered(Cut):
    """The first of ``files`` is the sentencepiece model that cuts text, the last is vocab.json."""

    def read(self) -> dict[str, int]:
        self.pieces = read_pieces(self.folder / self.files[0])
        needed = (self.special["unk_token"], self.special["eos_token"])
        return read_vocabulary(self.folder / self.files[-1], needed)
