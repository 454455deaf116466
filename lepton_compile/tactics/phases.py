"""What a recipe wants to be fast, as calls of a layer: how many rows, how often, how exact.

    latency     decoder: one text, a prompt of 128 tokens read at once, 128 written one by one
                encoder: one text of 128 tokens
    throughput  decoder: the same for 32 texts side by side, their prompts 512 rows at a time
                encoder: 512 rows at a time
    memory      nothing is timed: bytes of the weights decide

each within the recipe's shapes. Writing is what a decoder does most: it takes four fifths and more
of the time of a reply on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Phase", "Wanted", "wanted_of"]

PROMPT = REPLY = 128
TEXTS = 32
ROWS = 512

# How far the kernels of a layer may be off, by what the model may lose, which goes with the square
# of that. Two models that were measured say how much: Gemma 3 270M loses 0.41 % of perplexity to
# MatMulNBits, which is off by 0.0107 on the numbers of candidates.py; MiniLM loses 0.002 of its
# cosine to our kernels of 7 bits, which are off by 0.0244.
_BY_PERPLEXITY = 0.0107 / math.sqrt(0.0041)
_BY_COSINE = 0.0244 / math.sqrt(0.002)


@dataclass(frozen=True)
class Phase:
    """Calls of every layer with ``rows`` rows, ``times`` of them."""

    name: str
    rows: int
    times: float


@dataclass(frozen=True)
class Wanted:
    """What kernels are chosen for.

    Attributes:
        objective: of the recipe.
        phases: what is timed; empty where bytes decide.
        budget: error of a layer that the model bears, as a part of the size of what it gives.
    """

    objective: str
    phases: tuple[Phase, ...]
    budget: float


def wanted_of(
    objective: str,
    ranges: Mapping[str, Sequence[int]],
    *,
    decoder: bool,
    perplexity: float | None = None,
    cosine: float | None = None,
) -> Wanted:
    """The phases of an objective.

    Args:
        ranges: least and most of ``batch`` and ``sequence``.
        perplexity, cosine: what the engine has to keep; without either, a kernel has to be as
            exact as that which it replaces.
    """
    budget = 0.0
    if decoder and perplexity is not None:
        budget = _BY_PERPLEXITY * math.sqrt(max(perplexity, 0))
    elif not decoder and cosine is not None:
        budget = _BY_COSINE * math.sqrt(max(1 - cosine, 0))
    return Wanted(objective, _phases(objective, ranges, decoder), budget)


def _phases(
    objective: str, ranges: Mapping[str, Sequence[int]], decoder: bool
) -> tuple[Phase, ...]:
    batch, length = ranges["batch"][1], ranges["sequence"][1]
    if objective == "memory":
        return ()
    texts, most = (1, PROMPT) if objective == "latency" else (min(TEXTS, batch), ROWS)
    prompt = min(PROMPT, length)
    if not decoder:
        rows = min(most, prompt if objective == "latency" else batch * length)
        return (Phase("texts", rows, 1),)
    rows = min(most, texts * prompt)
    return (Phase("write", texts, REPLY), Phase("read", rows, texts * prompt / rows))
