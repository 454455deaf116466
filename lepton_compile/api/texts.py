"""A text to verify on in place of the sample: read, and long enough, before anything is built."""

from __future__ import annotations

import stat
from pathlib import Path

from lepton_compile.errors import RecipeError, UsageError
from lepton_compile.export import Source
from lepton_compile.recipe import Recipe

__all__ = ["LARGEST", "check_long_enough", "check_recipe_text", "read_text", "text_in"]

KEY = "verify.text"
OR_NONE = "or leave it out: a sample ships with the package"
HINT = f"write some paragraphs into it, {OR_NONE}"

LARGEST = 16_000_000
"""Bytes of a text: those of a million tokens, several times over."""


def read_text(path: Path, *, where: str = KEY, error: type[UsageError] = RecipeError) -> str:
    """The text of a file. Raises ``error`` where there is none."""
    try:
        text = text_in(path)
    except (OSError, UnicodeDecodeError) as failure:
        raise error(
            "the text to verify on cannot be read",
            where=where,
            found=f"{path}: {failure}",
            hint=f"name a file of text in UTF-8, {OR_NONE}",
        ) from failure
    if not text.strip():
        raise error("the text to verify on is empty", where=where, found=str(path), hint=HINT)
    return text


def text_in(path: Path) -> str:
    """What a file holds, of a size that can be read and compared on. Raises OSError,
    UnicodeDecodeError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a device or a pipe, which may never end
        raise OSError("it is no regular file")
    if found.st_size > LARGEST:
        most = f"at most {LARGEST / 1e6:.0f} MB, which is more than a million tokens, are read"
        raise OSError(f"it has {found.st_size / 1e6:,.0f} MB; {most}")
    return path.read_text("utf-8")


def check_recipe_text(recipe: Recipe, source: Source) -> None:
    """The recipe's text has enough tokens. Raises RecipeError."""
    from lepton_compile.api.task import task_of

    if recipe.verify.text is not None and source.kind != "onnx":
        path = recipe.base / recipe.verify.text
        check_long_enough(path, read_text(path), source, recipe.task or task_of(source))


def check_long_enough(
    path: Path,
    text: str,
    source: Source,
    task: str,
    *,
    where: str = KEY,
    error: type[UsageError] = RecipeError,
) -> None:
    """The text of a file gives the model something to be compared on. Raises ``error``."""
    from lepton_compile.numerics.sample_text import comparable

    decoder = task in ("text-generation", "image-text-to-text")
    tokenizer = source.tokenizer()
    if tokenizer is None or comparable(tokenizer, text, decoder=decoder):
        return  # without a tokenizer random ids are fed
    lacks = "no token that follows another" if decoder else "no tokens"
    raise error(
        f"the text to verify on gives {lacks}",
        where=where,
        found=str(path),
        hint=HINT,
    )
