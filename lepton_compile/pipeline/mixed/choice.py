"""Which weights get how few bits, from what each costs: greedy, then corrected by measuring.

A ladder is a weight (or several that are stacked) with its formats, from floating point down to 4
bits, each with its bytes and its estimated loss. All ladders begin at the top. The step that loses
least for each byte that it saves is taken first, as long as the sum of losses stays in the budget:
the greedy solution of the knapsack that HAWQ-V3 (Yao et al., arXiv:2011.10680) gives to a solver;
with hundreds of small steps it is as good.

Losses add up only as long as they are small, and estimates are estimates. So the choice is measured
as a whole, and what the estimates may add up to is corrected until the measured loss is just
inside the budget.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Ladder", "Option", "Outcome", "choose", "search"]

ROUNDS = 5
MORE_ROUNDS = 6
"""How often a choice is measured; further ones only as long as none was inside the budget."""

NEAR = 0.85
"""Part of the budget that is used up well enough."""


@dataclass(frozen=True)
class Option:
    """A format: bits (``None`` is floating point), bytes and estimated loss."""

    bits: int | None
    bytes: int
    loss: float


@dataclass(frozen=True)
class Ladder:
    """The formats of one unit, by falling bytes; the first one loses nothing."""

    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Outcome:
    """A choice: index of the option of each ladder, what it should lose, and what it did lose."""

    picks: tuple[int, ...]
    estimated: float
    measured: float
    tries: int


def choose(ladders: Sequence[Ladder], budget: float) -> tuple[int, ...]:
    """Index of an option for each ladder, estimated losses within ``budget`` in sum.

    A step that does not fit is left out, and smaller ones behind it are still tried.
    """
    picks = [0] * len(ladders)
    spent = 0.0
    heap: list[tuple[float, int]] = []

    def offer(index: int) -> None:
        options, at = ladders[index].options, picks[index]
        if at + 1 < len(options):
            heapq.heappush(heap, (_price(options[at], options[at + 1]), index))

    for index in range(len(ladders)):
        offer(index)
    while heap:
        _, index = heapq.heappop(heap)
        options, at = ladders[index].options, picks[index]
        cost = options[at + 1].loss - options[at].loss
        if spent + cost > budget:
            continue
        spent += cost
        picks[index] += 1
        offer(index)
    return tuple(picks)


def search(
    ladders: Sequence[Ladder],
    budget: float,
    measure: Callable[[tuple[int, ...]], float],
    rounds: int = ROUNDS,
) -> Outcome:
    """The smallest choice found whose measured loss is within ``budget``.

    Args:
        measure: the loss of a choice as a whole; asked for a choice once.
        rounds: how often it may be asked; more often where nothing was inside the budget.
    """
    low, high, target = 0.0, float("inf"), budget
    seen: dict[tuple[int, ...], float] = {}
    best: tuple[int, ...] | None = None
    while len(seen) < (rounds if best is not None else rounds + MORE_ROUNDS):
        picks = choose(ladders, target)
        if not any(picks):
            break
        known = picks in seen
        if not known:
            seen[picks] = measure(picks)
        lost = seen[picks]
        if lost <= budget:
            low = target
            if best is None or _bytes(ladders, picks) < _bytes(ladders, best):
                best = picks
        else:
            high = target
        everything = all(p + 1 == len(each.options) for p, each in zip(picks, ladders, strict=True))
        if NEAR * budget <= lost <= budget or (everything and lost <= budget):
            break
        if known and high < low * 1.01:  # no step between the two
            break
        target = _next(low, high, target, budget, lost)
    picks = best if best is not None else (0,) * len(ladders)
    return Outcome(picks, _loss(ladders, picks), seen.get(picks, 0.0), len(seen))


def _price(now: Option, then: Option) -> float:
    return (then.loss - now.loss) / max(1, now.bytes - then.bytes)


def _next(low: float, high: float, target: float, budget: float, lost: float) -> float:
    """What estimates may add up to next: as if the loss went with it, inside what is known."""
    guess = target * budget * (1 + NEAR) / 2 / max(lost, 1e-12)
    if high == float("inf"):
        return max(min(guess, 8 * target), 1.05 * target)
    if low == 0.0:
        return min(max(guess, target / 8), 0.95 * target)
    return guess if low * 1.02 < guess < high / 1.02 else (low * high) ** 0.5


def _bytes(ladders: Sequence[Ladder], picks: Sequence[int]) -> int:
    return sum(each.options[p].bytes for each, p in zip(ladders, picks, strict=True))


def _loss(ladders: Sequence[Ladder], picks: Sequence[int]) -> float:
    return sum(each.options[p].loss for each, p in zip(ladders, picks, strict=True))
