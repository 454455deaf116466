"""The file of a sentencepiece model, read without its library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source.made_tokenizer.pieces_proto import model_class
from lepton_compile.export.source.objects import HINT

__all__ = ["SPACE", "Pieces", "Type", "read_pieces"]

SPACE = "▁"
"""What stands for a space in pieces."""
MODELS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


class Type(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Pieces:
    """What a sentencepiece model cuts text into, and what it does to text before.

    Attributes:
        names: every piece in order, those included that no text has.
        scores: of the pieces that texts are cut into, the likelihood of each.
        unigram: whether pieces are chosen by it; otherwise they are merged in its order.
        charsmap: rules for characters, as ``tokenizers`` takes them, too; empty without any.
        leads: whether texts begin with a space that they do not have.
        trims: whether texts lose spaces at the ends, and all but one of several.
    """

    names: list[str]
    scores: dict[str, float]
    unigram: bool
    charsmap: bytes
    leads: bool
    trims: bool

    @property
    def across_words(self) -> bool:
        """Whether a piece has a space after its first character."""
        return any(SPACE in name[1:] for name in self.scores)


def read_pieces(file: Path) -> Pieces:
    """Raises SourceError: damaged, or a model of another kind."""
    model = _parsed(file)
    _check(file, model)
    names = [piece.piece for piece in model.pieces]
    scores = {p.piece: p.score for p in model.pieces if p.type == Type.NORMAL}
    best = max(scores.values())
    # As the library counts: what the trainer was told to keep whole is dearer than no other.
    user = [piece.piece for piece in model.pieces if piece.type == Type.USER]
    scores |= {name: len(name.encode()) * best - 0.1 for name in user}
    told = model.normalizer_spec
    return Pieces(
        names,
        scores,
        unigram=MODELS[model.trainer_spec.model_type] == "unigram",
        charsmap=told.precompiled_charsmap,
        leads=told.add_dummy_prefix,
        trims=told.remove_extra_whitespaces,
    )


def _parsed(file: Path) -> Any:
    from google.protobuf.message import DecodeError

    model = model_class()()
    try:
        model.ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise _damaged(file, str(error)) from error
    return model


def _check(file: Path, model: Any) -> None:
    names = {piece.piece for piece in model.pieces}
    if not model.HasField("trainer_spec") or not model.HasField("normalizer_spec"):
        raise _damaged(file, f"{len(names)} pieces, and not how they are used")
    if not all(isinstance(name, str) for name in names):  # bytes, where they are no text
        raise _damaged(file, "pieces that are no text")
    if len(names) < len(model.pieces) or "" in names:
        raise _damaged(file, "pieces that are empty or there twice")
    if not all(math.isfinite(piece.score) for piece in model.pieces):
        raise _damaged(file, "scores that are no numbers")
    if not any(piece.type == Type.NORMAL for piece in model.pieces):
        raise _damaged(file, "no pieces for any text")
    if model.normalizer_spec.precompiled_charsmap:
        _check_rules(file, model.normalizer_spec.precompiled_charsmap)
    lacks = {
        f"a {MODELS.get(model.trainer_spec.model_type)} model": model.trainer_spec.model_type > 2,
        "bytes for unknown characters": model.trainer_spec.byte_fallback,
        "spaces behind words": model.trainer_spec.treat_whitespace_as_suffix,
        "spaces that stay spaces": not model.normalizer_spec.escape_whitespaces,
    }
    if found := [name for name, there in lacks.items() if there]:
        raise SourceError(
            "This kind of sentencepiece model cannot be written as a tokenizer.json.",
            where=str(file),
            found=", ".join(found),
            available=["unigram", "bpe"],
        )


def _check_rules(file: Path, rules: bytes) -> None:
    from tokenizers.normalizers import Precompiled

    try:
        Precompiled(rules)
    except Exception as error:  # the library has no class of its own for it
        raise _damaged(file, f"rules for characters that are none: {error}") from error


def _damaged(file: Path, found: str) -> SourceError:
    return SourceError(
        "The sentencepiece model cannot be read.", where=str(file), found=found[:120], hint=HINT
    )
