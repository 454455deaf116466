"""The files of a tokenizer: what is seen of them without loading one, and which is at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError, is_failure
from lepton_compile.export.source.objects import read_object

__all__ = ["TOKENIZER_FILES", "check_small_files", "tokenizer_error"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
SMALL = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


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


def check_small_files(folder: Path) -> None:
    """Refuse files that are no objects, and special tokens that are no texts. Raises SourceError.

    Vocabularies are looked at by who loads them, which takes seconds.
    """
    read_object(folder / "generation_config.json")
    for file in (folder / name for name in SMALL):
        for name, value in read_object(file).items():
            fits, wanted = KEYS.get(name, (lambda value: True, ""))
            if not fits(value):
                raise SourceError(
                    f"{name} is of another form.",
                    where=str(file),
                    found=f"{value!r:.60}",
                    available=[wanted],
                    hint="Compare it with the one that the model was released with.",
                )


def tokenizer_error(folder: Path, error: BaseException) -> SourceError:
    """The error for a tokenizer that cannot be loaded, by the file that is at fault."""
    file = folder / "tokenizer.json"
    place, found = next(_faults(file), (folder, f"{type(error).__name__}: {error}"))
    return SourceError(
        "The tokenizer cannot be loaded.",
        where=str(place),
        found=found,
        available=sorted(each.name for each in folder.iterdir() if each.name in _all()),
        hint="Download it again, or compare it with the one that the model was released with.",
    )


def _all() -> tuple[str, ...]:
    return (*TOKENIZER_FILES, *SMALL, "merges.txt")


def _faults(file: Path) -> Iterator[tuple[Path, str]]:
    """What is wrong with a tokenizer.json: as JSON, to the library, and to transformers."""
    if not file.is_file():
        return
    from tokenizers import Tokenizer

    try:
        found = read_object(file)
        Tokenizer.from_file(str(file))
    except BaseException as error:
        if not is_failure(error):
            raise
        yield file, (error.found or error.message) if isinstance(error, SourceError) else str(error)
        return
    tokens = found.get("added_tokens")
    if not isinstance(tokens, list) or not all(_is_token(each) for each in tokens):
        yield file, f"added_tokens: {tokens!r:.60}"


def _is_token(found: Any) -> bool:
    return isinstance(found, dict) and "id" in found and isinstance(found.get("content"), str)
