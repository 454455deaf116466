"""The files of a tokenizer: what is seen of them without loading one, and which is at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError, is_failure
from lepton_compile.export.source.objects import COMPARE, HINT, read_object
from lepton_compile.export.source.tokenizer_json import fault_in

__all__ = ["TOKENIZER_FILES", "check_tokenizer_files", "tokenizer_error", "vocabulary_error"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
SMALL = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
WORDS, PLAIN = "tokenizer.json", ("vocab.txt", "merges.txt")
LARGE = 1 << 20
"""Bytes of a tokenizer.json that is not looked at while somebody waits: 14 MB take two seconds."""


def _is_special(found: Any) -> bool:
    """Whether it is a token, or none; half a character is no text."""
    text = found.get("content") if isinstance(found, dict) else found
    return text is None or (
        isinstance(text, str) and text.encode("utf-8", "ignore").decode() == text
    )


# What transformers takes of other keys, in words: elsewhere its errors name none of them.
SIDES = ("left", "right")
SPECIAL = _is_special, "a text such as </s>, an object with its content, or null"
KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **{f"{n}_token": SPECIAL for n in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "added_tokens_decoder": (lambda v: isinstance(v, dict), "an object"),
    "additional_special_tokens": (lambda v: isinstance(v, list | dict | None), "a list"),
    "extra_special_tokens": (lambda v: isinstance(v, list | dict | None), "a list or an object"),
    "model_input_names": (lambda v: isinstance(v, list), "a list"),
    "model_max_length": (lambda v: isinstance(v, int | float | None), "a number"),
    "padding_side": (lambda v: v in SIDES, "left or right"),
    "tokenizer_class": (lambda v: isinstance(v, str | None), "the name of a class"),
    "truncation_side": (lambda v: v in SIDES, "left or right"),
}


def check_tokenizer_files(folder: Path) -> None:
    """Refuse files that are no objects, special tokens that are no texts, and a vocabulary that the
    tokenizer's library would not take, unless it is large. Raises SourceError."""
    for file in (folder / name for name in SMALL):
        for name, value in read_object(file).items():
            fits, wanted = KEYS.get(name, (lambda value: True, ""))
            if not fits(value):
                raise SourceError(
                    f"{name} is of another form.",
                    where=str(file),
                    found=f"{value!r:.60}",
                    available=[wanted],
                    hint=COMPARE,
                )
    if not _is_large(folder) and (fault := _fault_of_words(folder)) is not None:
        raise _cannot_be_loaded(folder, *fault)


def vocabulary_error(folder: Path) -> SourceError | None:
    """What is wrong with a large tokenizer.json, which the library loads: it leaves other threads
    to their work meanwhile."""
    if not _is_large(folder) or (told := _told_by_library(folder / WORDS)) is None:
        return None
    return _cannot_be_loaded(folder, *(_fault_of_words(folder) or told))


def _is_large(folder: Path) -> bool:
    file = folder / WORDS
    return file.is_file() and file.stat().st_size > LARGE


def _fault_of_words(folder: Path) -> tuple[Path, str] | None:
    """The file of a vocabulary that is damaged, and what is wrong with it. One in tokenizer.json
    makes the others needless."""
    if (file := folder / WORDS).is_file():
        fault = fault_in(file)
        return (file, fault) if fault is not None else None
    read_object(folder / "vocab.json")
    for file in (folder / name for name in PLAIN if (folder / name).is_file()):
        try:
            file.read_text("utf-8")
        except (OSError, ValueError) as error:
            return file, str(error)
    return None


def tokenizer_error(folder: Path, error: BaseException) -> SourceError:
    """The error for a tokenizer that cannot be loaded, by the file that is at fault."""
    fault = _fault_of_words(folder) or _told_by_library(folder / WORDS)
    place, found = fault or (folder, f"{type(error).__name__}: {error}")
    return _cannot_be_loaded(folder, place, found)


def _cannot_be_loaded(folder: Path, place: Path, found: str) -> SourceError:
    return SourceError(
        "The tokenizer cannot be loaded.",
        where=str(place),
        found=found,
        available=sorted(each.name for each in folder.iterdir() if each.name in _all()),
        hint=HINT,
    )


def _all() -> tuple[str, ...]:
    return (*TOKENIZER_FILES, *SMALL, "merges.txt")


def _told_by_library(file: Path) -> tuple[Path, str] | None:
    """What it says of a whole tokenizer.json."""
    from tokenizers import Tokenizer

    if not file.is_file():
        return None
    try:
        Tokenizer.from_file(str(file))
    except BaseException as error:
        if not is_failure(error):
            raise
        return file, str(error)
    return None
