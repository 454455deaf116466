"""The parts of a tokenizer.json that cut text as a sentencepiece model does.

Numbers come from elsewhere, such as a vocab.json, so that some pieces have none and some words are
no pieces. Where a piece has no number text is cut into others; sentencepiece would leave an unknown
word. A word that is no piece occurs in answers, and no text is to be cut into it: a unigram model
would choose it, so it stands there between two marks, which texts never have and answers lose. The
one exception are characters that no piece has: sentencepiece leaves a run of them whole, and where
the whole of it is a word, it has that word's number. Such runs get the marks before they are cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from typing import Any

from lepton_compile.export.source.made_tokenizer.pieces_file import SPACE, Pieces

__all__ = ["Marks", "bpe", "cutting", "decoder", "unigram"]

PRIVATE = range(0xF0000, 0xFFFFE)
"""Characters that are given out to nobody."""
LETTERS = range(0xC0, 0x250)  # Latin ones, and characters of other kinds
TIDIED = (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re")
NEVER = 100  # times the score of the least likely piece


class Marks:
    """Three characters that no word has: two to enclose, one in place of those in a text."""

    def __init__(self, words: Iterable[str]) -> None:
        used = {char for word in words for char in word if ord(char) in PRIVATE}
        free = (chr(code) for code in PRIVATE if chr(code) not in used)
        self.left, self.right, self.other = next(free), next(free), next(free)

    def around(self, word: str) -> str:
        """The word as texts never have it."""
        return f"{self.left}{word}{self.right}"


def unigram(ids: Mapping[str, int], pieces: Pieces, unknown: str, found: Collection[str]) -> Any:
    """The model; ``found`` are words that are looked for before text is cut."""
    marks, never = Marks(ids), NEVER * min(-1.0, *pieces.scores.values())

    def entry(word: str) -> list[Any]:
        if word in found:
            return [word, never]
        score = pieces.scores.get(word)
        return [marks.around(word), 0.0] if score is None else [word, score]

    words = sorted(ids, key=ids.__getitem__)
    return {
        "type": "Unigram",
        "unk_id": ids[unknown],
        "vocab": [entry(word) for word in words],
        "byte_fallback": False,
    }


def bpe(ids: Mapping[str, int], pieces: Pieces, unknown: str) -> Any:
    """The model."""
    ranked = sorted(pieces.scores.keys() & ids.keys(), key=lambda name: -pieces.scores[name])
    there = {*ranked}
    merges = [
        [name[:at], name[at:]]
        for name in ranked
        for at in range(1, len(name))
        if name[:at] in there and name[at:] in there
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(ids),
        "merges": merges,
    }


def cutting(ids: Iterable[str], pieces: Pieces) -> dict[str, Any]:
    """What is done to text before a model cuts it."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    words = [*ids]
    steps = _rules(words, pieces.charsmap) if pieces.charsmap else []
    if pieces.unigram:
        steps += _marking(words, pieces)
    if pieces.trims:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if pieces.leads:
        steps.append(normalizers.Prepend(SPACE))
    made: dict[str, Any] = {"normalizer": normalizers.Sequence(steps)}
    if not pieces.across_words:  # shorter texts are cut faster
        made["pre_tokenizer"] = pre_tokenizers.Split(SPACE, "merged_with_next")
    return made


def _rules(words: list[str], charsmap: bytes) -> list[Any]:
    """Those of sentencepiece, which takes the longest one at each character.

    The library takes the shortest one for a letter with its accents, and forgets what is behind it.
    So accents are kept apart, by a character that is long enough for it to take each one by itself;
    rules that join them with letters are those of Unicode.
    """
    from tokenizers import Regex, normalizers

    rules, apart = normalizers.Precompiled(charsmap), Marks(words).other
    if not _joins(rules):
        return [rules]
    accent = normalizers.Replace(Regex(r"(?<=[^\n]|\n)(?=\p{M})"), apart)
    return [normalizers.NFC(), accent, rules, normalizers.Replace(apart, "")]


def _joins(rules: Any) -> bool:
    """Whether letters and accents become one character where Unicode has it. Told by Latin ones:
    the library takes rules for pairs that are short enough."""
    pairs = {chr(code): unicodedata.normalize("NFD", chr(code)) for code in LETTERS}
    return all(
        rules.normalize_str(pair) == rules.normalize_str(letter)
        for letter, pair in pairs.items()
        if len(pair) == 2 and unicodedata.normalize("NFC", pair) == letter
    )


def _marking(words: list[str], pieces: Pieces) -> list[Any]:
    from tokenizers import Regex, normalizers

    marks = Marks(words)
    steps = [normalizers.Replace(Regex(f"[{marks.left}{marks.right}]"), marks.other)]
    known = {SPACE, " ", *"".join(pieces.scores)}
    if any(known.isdisjoint(word) for word in words):
        unknown = f"[^{_class(known)}]"
        steps.append(normalizers.Replace(Regex(f"(?<!{unknown})(?={unknown})"), marks.left))
        # What was put in is unknown as well, and what it stands before has more behind it.
        steps.append(normalizers.Replace(Regex(f"(?<={unknown})(?!{unknown})"), marks.right))
    return steps


def _class(characters: Collection[str]) -> str:
    """For a regular expression, in ranges."""
    codes = enumerate(sorted(map(ord, characters)))
    runs = ([code for _, code in run] for _, run in groupby(codes, lambda each: each[1] - each[0]))
    return "".join(f"{re.escape(chr(run[0]))}-{re.escape(chr(run[-1]))}" for run in runs)


def decoder(ids: Iterable[str], tidied: bool) -> Any:
    """What makes a text of pieces; ``tidied`` of spaces before marks, as transformers does it."""
    from tokenizers import Regex, decoders

    marks = Marks(ids)
    return decoders.Sequence(
        [
            decoders.Replace(Regex(f"[{marks.left}{marks.right}]"), ""),
            decoders.Replace(SPACE, " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r"\A\s+|\s+\z"), ""),
            *(decoders.Replace(f" {mark}", mark.strip(" ")) for mark in TIDIED if tidied),
        ]
    )
