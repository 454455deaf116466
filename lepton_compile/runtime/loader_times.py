"""When what is said was said: tokens that stand for times, and the pieces between them.

The rules are those of OpenAI's decoding for Whisper: an answer begins with a time, times come in
pairs and never go back, and one is written where all of them together are likelier than any word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Segment", "rule_times", "segments"]


class Segment(NamedTuple):
    """What was said from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    text: str | None


def rule_times(told: Mapping[str, Any], scores: np.ndarray, written: list[int]) -> None:
    """Overwrite the ``scores`` (vocabulary) of tokens that may not follow what is ``written``."""
    first, latest = told["times"]["first"], told["times"]["latest"]
    scores[told["plain"]] = -np.inf
    if not written:
        scores[:first] = -np.inf
        if latest is not None:
            scores[first + latest + 1 :] = -np.inf
        return
    timed, before = written[-1] >= first, len(written) < 2 or written[-2] >= first
    if timed and before:
        scores[first:] = -np.inf
    elif timed:
        scores[: min(told["eos"])] = -np.inf
    times = [token for token in written if token >= first]
    if times:
        scores[first : times[-1] + (not timed or before)] = -np.inf
    with np.errstate(divide="ignore"):
        highest = scores[first:].max()
        if not np.isneginf(highest):
            together = highest + np.log(np.exp(scores[first:] - highest).sum())
            if together > scores[:first].max():
                scores[:first] = -np.inf


def segments(model: Any, windows: list[Any]) -> Iterator[Segment]:
    """What was said in windows of one sound, each where it ``begins`` (samples)."""
    told = model.manifest["generation"]
    first, step, rate = told["times"]["first"], told["times"]["step"], told["sound"]["rate"]
    for window in windows:
        most = window.begins + len(window.samples)
        since, words = window.begins, list[int]()
        for token in [*window.tokens, None]:
            if token is not None and token < first:
                words.append(token)
                continue
            at = most if token is None else min(window.begins + (token - first) * step, most)
            if words and (text := _text(model, words)) != "":
                yield Segment(since / rate, max(at, since) / rate, text)
            since, words = at, []


def _text(model: Any, words: list[int]) -> str | None:
    return model.tokenizer.decode(words).strip() if model.manifest["tokenizer"] else None
