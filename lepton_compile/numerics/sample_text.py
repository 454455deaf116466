"""The text that engines are verified on: six short passages in different styles, about 1,600 tokens.

Written for this project, so that it may be shipped, and in no model's training data when it was
written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

__all__ = ["paragraphs", "passages", "random_segments", "segments", "special_prefix", "token_ids"]

SEGMENT = 128


def passages() -> dict[str, str]:
    """Style -> text, in alphabetical order of the styles."""
    folder = files("lepton_compile.numerics").joinpath("sample")
    texts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".txt")), key=str)
    return {entry.name.removesuffix(".txt"): entry.read_text(encoding="utf-8") for entry in texts}


def paragraphs() -> list[str]:
    """The passages cut at their blank lines: sentences of very different lengths."""
    return [part.strip() for text in passages().values() for part in text.split("\n\n")]


def token_ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of a text, from a transformers tokenizer or one of the `tokenizers` package."""
    encoded = tokenizer.encode(text, add_special_tokens=special)
    return list(getattr(encoded, "ids", encoded))


def special_prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text, such as a begin-of-sequence token."""
    bare = token_ids(tokenizer, "text", special=False)
    whole = token_ids(tokenizer, "text", special=True)
    starts = [at for at in range(len(whole)) if whole[at : at + len(bare)] == bare]
    return whole[: starts[0]] if starts else []


def segments(tokenizer: Any, length: int = SEGMENT) -> list[list[int]]:
    """The passages as token ids, each cut into equal parts of at most ``length`` tokens.

    Every part begins as a text of its own would, so the first tokens of a part are predicted from
    little context, by the engine and by the reference alike.
    """
    prefix = special_prefix(tokenizer)
    room = max(1, length - len(prefix))
    parts = []
    for text in passages().values():
        ids = token_ids(tokenizer, text, special=False)
        count = math.ceil(len(ids) / room)
        edges = [len(ids) * n // count for n in range(count + 1)]
        parts += [prefix + ids[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    return parts


def random_segments(vocabulary: int, lengths: Sequence[int]) -> list[list[int]]:
    """Random ids in place of text, for a model that has no tokenizer; the same ones every time."""
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, length).tolist() for length in lengths]
