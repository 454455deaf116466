"""Tokenizers whose text a sentencepiece model cuts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from lepton_compile.export.source.made_tokenizer import pieces
from lepton_compile.export.source.made_tokenizer.base import Slow
from lepton_compile.export.source.made_tokenizer.pieces_file import Pieces

__all__ = ["Cut"]


class Cut(Slow):
    """One by ``pieces``, which are read with the vocabulary.

    Attributes:
        tidies: whether answers lose spaces before punctuation where no file says so.
    """

    pieces: Pieces
    tidies: ClassVar[bool] = False

    @abstractmethod
    def post_processor(self) -> Any:
        """What puts special tokens around a text."""

    def parts(self) -> dict[str, Any]:
        unknown = self.special["unk_token"]
        found = {*self.special.values(), *self.extra(), *self.whole_words()}
        if self.pieces.unigram:
            model = pieces.unigram(self.ids, self.pieces, unknown, found)
        else:
            model = pieces.bpe(self.ids, self.pieces, unknown)
        tidied = bool(self.told.get("clean_up_tokenization_spaces", self.tidies))
        return {
            **pieces.cutting(self.ids, self.pieces),
            "model": model,
            "post_processor": self.post_processor(),
            "decoder": pieces.decoder(self.ids, tidied),
        }
