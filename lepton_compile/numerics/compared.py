"""What an engine and its reference are compared on, and one output of both."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lepton_compile.numerics.engine import Engine
from lepton_compile.numerics.sample_text import random_segments, segments, within

__all__ = ["Feed", "decoder_parts", "ends"]


@dataclass(frozen=True)
class Feed:
    """Where the ids come from, and how many are wanted."""

    tokenizer: Any
    text: str | None
    tokens: int | None

    def enough(self, parts: list[list[int]]) -> list[list[int]]:
        """The first parts that reach the wanted number of tokens."""
        if self.tokens is None:
            return parts
        before = [0, *accumulate(map(len, parts))]
        return [part for part, start in zip(parts, before, strict=False) if start < self.tokens]


def ends(model: Engine, dimension: str) -> tuple[int, int]:
    """Least and most that the engine takes of a dimension."""
    low, high = model.manifest["ranges"][dimension]
    return int(low), int(high)


def decoder_parts(model: Engine, feed: Feed, longest: int) -> list[list[int]]:
    """Segments of the text, for an engine that writes on, or random ids without a tokenizer."""
    vocabulary = int(model.manifest["generation"]["vocabulary"])
    if feed.tokenizer is not None:
        return within(vocabulary, feed.tokenizer, segments(feed.tokenizer, longest, feed.text))
    return random_segments(vocabulary, [longest, longest, max(1, longest // 2)])
