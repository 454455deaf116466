"""The vocab.json of a tokenizer: words and their numbers."""

from __future__ import annotations

from pathlib import Path

from lepton_compile.errors import SourceError
from lepton_compile.export.source.objects import HINT, read_object

__all__ = ["read_vocabulary"]


def read_vocabulary(file: Path, needed: tuple[str, ...]) -> dict[str, int]:
    """Words by number, from 0 without gaps.

    Raises:
        SourceError: no such object, a number that is none, is missing or is used twice, or a word
            of ``needed`` is not in it.
    """
    words = read_object(file)

    def wrong(found: str) -> SourceError:
        return SourceError(
            "The vocabulary does not number its words from 0 on.",
            where=str(file),
            found=found,
            hint=HINT,
        )

    for word, number in words.items():
        if type(number) is not int:
            raise wrong(f"{word!r:.60} is {number!r:.60}")
    by_number = {number: word for word, number in words.items()}
    if len(by_number) < len(words):
        twice = next((w, n) for w, n in words.items() if by_number[n] != w)
        raise wrong(f"{twice[0]!r:.60} and {by_number[twice[1]]!r:.60} are {twice[1]}")
    lost = next((number for number in range(len(words)) if number not in by_number), None)
    if lost is not None or not words:
        raise wrong(f"{len(words)} words, none of them {lost or 0}")
    if missing := [word for word in needed if word not in words]:
        raise SourceError(
            "The vocabulary lacks a special token.",
            where=str(file),
            found=", ".join(missing),
            hint=HINT,
        )
    for word in words:
        if word.encode("utf-8", "ignore").decode() != word:
            raise wrong(f"{word!r:.60}, which has half a character")
    return words
