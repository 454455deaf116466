"""The text that engines are verified on: six short passages, a style each, about 1,600 tokens.

Written for this project, so that it may be shipped, and in no model's training data when it was
written. A second text of the same size is for weights that are fitted to a sample: what they are
judged by must not be what they were fitted to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np

from lepton_compile.errors import SourceError, told_as

__all__ = [
    "calibration_segments",
    "comparable",
    "digest",
    "paragraphs",
    "passages",
    "random_segments",
    "segments",
    "special_prefix",
    "token_ids",
    "whole_texts",
    "within",
]

# Tokens of a text, and texts of an encoder, that are compared at a time.
SEGMENT, BATCH = 128, 8


def calibration_segments(tokenizer: Any, length: int) -> list[list[int]]:
    """The text to fit weights to, no sentence of which is in the sample; cut as by ``segments``."""
    texts = passages("calibration").values()
    return [part for text in texts for part in segments(tokenizer, length, text)]


def passages(which: str = "sample") -> dict[str, str]:
    """Style -> text, in alphabetical order of the styles; ``sample`` or ``calibration``."""
    folder = files("lepton_compile.numerics").joinpath(which)
    texts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".txt")), key=str)
    return {entry.name.removesuffix(".txt"): entry.read_text(encoding="utf-8") for entry in texts}


def digest(which: str = "sample") -> str:
    """SHA-256 of the passages, in their order; what was fitted to them depends on every byte."""
    return hashlib.sha256("\0".join(passages(which).values()).encode()).hexdigest()


def paragraphs(text: str | None = None) -> list[str]:
    """The passages, or another text, cut at blank lines: pieces of very different lengths."""
    rounds = [
        passage.split("\n\n") for passage in (passages().values() if text is None else [text])
    ]
    return [part.strip() for turn in zip_longest(*rounds) for part in turn if part and part.strip()]


def token_ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of a text, from a transformers tokenizer or one of the `tokenizers` package."""
    # transformers would warn of texts longer than the model takes; whoever asks here cuts them.
    quiet = {"verbose": False} if hasattr(tokenizer, "model_max_length") else {}

    def failed(error: BaseException) -> SourceError:
        return SourceError(
            "The tokenizer fails on a text.",
            where=f"the tokenizer's files in {getattr(tokenizer, 'name_or_path', None) or '.'}",
            found=f"{error}, with {text!r:.40}",
            hint="Compare them with those that the model was released with.",
        )

    with told_as(failed):  # one that loads may still name a token that it lacks
        encoded = tokenizer.encode(text, add_special_tokens=special, **quiet)
    return list(getattr(encoded, "ids", encoded))


def special_prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text, such as a begin-of-sequence token."""
    return _around(tokenizer)[0]


def whole_texts(tokenizer: Any, texts: Sequence[str], length: int) -> list[list[int]]:
    """Texts as an encoder gets them: what is too long is cut in front of the tokens that end it."""
    behind = _around(tokenizer)[1][-length:]
    found = [token_ids(tokenizer, text, special=True) for text in texts]
    kept = length - len(behind)
    return [ids if len(ids) <= length else ids[:kept] + behind for ids in found if ids]


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind every text."""
    bare = token_ids(tokenizer, "text", special=False)
    whole = token_ids(tokenizer, "text", special=True)
    starts = [at for at in range(len(whole)) if whole[at : at + len(bare)] == bare]
    return (whole[: starts[0]], whole[starts[0] + len(bare) :]) if starts else ([], [])


def segments(tokenizer: Any, length: int = SEGMENT, text: str | None = None) -> list[list[int]]:
    """The passages as token ids, each cut into equal parts of at most ``length`` tokens.

    Every part begins as a text of its own would, so the first tokens of a part are predicted from
    little context, by the engine and by the reference alike. The parts take turns through the
    passages: the first few already show every style.

    Args:
        tokenizer: as for ``token_ids``.
        length: most tokens in a part, the tokenizer's prefix included.
        text: another text in place of the passages.
    """
    prefix = special_prefix(tokenizer)
    room = max(1, length - len(prefix))
    rounds = []
    for passage in passages().values() if text is None else [text]:
        ids = token_ids(tokenizer, passage, special=False)
        if not ids:
            continue
        count = math.ceil(len(ids) / room)
        edges = [len(ids) * n // count for n in range(count + 1)]
        rounds.append([prefix + ids[a:b] for a, b in pairwise(edges)])
    return [part for turn in zip_longest(*rounds) for part in turn if part]


def within(vocabulary: int | None, tokenizer: Any, parts: list[list[int]]) -> list[list[int]]:
    """The parts, each token of which the model knows.

    Args:
        vocabulary: how many; None where its configuration does not say.

    Raises:
        SourceError: the tokenizer gives a token that the model has no row for. That it merely
            has such tokens is no mistake: some are for pictures.
    """
    known = math.inf if vocabulary is None else vocabulary
    unknown = sorted({token for part in parts for token in part if token >= known})
    if unknown:
        name = getattr(tokenizer, "convert_ids_to_tokens", None) or tokenizer.id_to_token
        raise SourceError(
            "The tokenizer gives tokens for a text that are not in the model's vocabulary.",
            where="the tokenizer's files, beside vocab_size of the configuration",
            found=f"vocab_size: {vocabulary}, and token {unknown[0]}, {name(unknown[0])!r}",
            hint="put the model's own tokenizer beside it; where tokens were added to it, give the "
            "model rows for them (resize_token_embeddings)",
        )
    return parts


def comparable(tokenizer: Any, text: str | None, *, decoder: bool) -> bool:
    """Whether a model can be compared on a text, the sample for None: a decoder needs a token and
    the next."""
    if decoder:
        return any(len(part) > 1 for part in segments(tokenizer, SEGMENT, text))
    return any(token_ids(tokenizer, part, special=True) for part in paragraphs(text))


def random_segments(vocabulary: int, lengths: Sequence[int]) -> list[list[int]]:
    """Random ids in place of text, for a model that has no tokenizer; the same ones every time."""
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, length).tolist() for length in lengths]
