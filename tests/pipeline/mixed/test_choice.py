"""Which steps are taken, on losses that are made up."""

from __future__ import annotations

import itertools
import random

import pytest

from lepton_compile.pipeline.mixed.choice import Ladder, Option, choose, search


def _ladder(name: str, size: int, eight: float, four: float) -> Ladder:
    options = (Option(None, 4 * size, 0.0), Option(8, size, eight), Option(4, size // 2, four))
    return Ladder(name, options)


def _many(count: int, seed: int = 0) -> list[Ladder]:
    draw = random.Random(seed)
    ladders = []
    for index in range(count):
        size, cost = draw.choice([100, 400, 1600]), draw.lognormvariate(0, 1)
        ladders.append(_ladder(f"w{index}", size, cost * size / 1e6, cost * size / 1e4))
    return ladders


def _loss(ladders: list[Ladder], picks: tuple[int, ...]) -> float:
    return sum(each.options[p].loss for each, p in zip(ladders, picks, strict=True))


def _bytes(ladders: list[Ladder], picks: tuple[int, ...]) -> int:
    return sum(each.options[p].bytes for each, p in zip(ladders, picks, strict=True))


def test_the_cheapest_step_for_its_bytes_goes_first() -> None:
    ladders = [_ladder("dear", 100, 0.001, 1.0), _ladder("cheap", 100, 0.001, 0.1)]
    assert choose(ladders, 0.0) == (0, 0)
    assert choose(ladders, 0.0015) == (0, 1) or choose(ladders, 0.0015) == (1, 0)
    assert choose(ladders, 0.002) == (1, 1)
    assert choose(ladders, 0.2) == (1, 2)
    assert choose(ladders, 2.0) == (2, 2)


def test_a_step_that_does_not_fit_does_not_stop_smaller_ones() -> None:
    ladders = [_ladder("table", 10_000, 0.0, 0.5), _ladder("layer", 10, 0.0, 0.1)]
    assert choose(ladders, 0.4) == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_nearly_the_best_there_is(seed: int) -> None:
    ladders = _many(6, seed)
    budget = 0.5 * sum(each.options[-1].loss for each in ladders)
    every = itertools.product(range(3), repeat=6)
    best = min(_bytes(ladders, p) for p in every if _loss(ladders, p) <= budget)
    picks = choose(ladders, budget)
    assert _loss(ladders, picks) <= budget
    # With six ladders one step is much; the gap closes with their number.
    assert _bytes(ladders, picks) <= 1.35 * best


def test_a_smaller_budget_never_takes_fewer_bytes() -> None:
    ladders = _many(60)
    sizes = [
        _bytes(ladders, choose(ladders, budget)) for budget in (0.0, 0.05, 0.2, 0.8, 3.0, 99.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0, 20.0])
def test_estimates_that_are_wrong_are_corrected_by_measuring(factor: float) -> None:
    ladders = _many(80)
    budget = 0.1 * sum(each.options[-1].loss for each in ladders)

    def measure(picks: tuple[int, ...]) -> float:
        return factor * _loss(ladders, picks) ** 1.2

    found = search(ladders, budget, measure, rounds=8)
    assert 0.6 * budget < found.measured <= budget
    assert found.measured == measure(found.picks)
    assert found.estimated == pytest.approx(_loss(ladders, found.picks))
    assert found.tries <= 8
    assert found == search(ladders, budget, measure, rounds=8)


def test_what_fits_as_a_whole_is_measured_once() -> None:
    ladders = _many(20)
    asked: list[tuple[int, ...]] = []

    def measure(picks: tuple[int, ...]) -> float:
        asked.append(picks)
        return 0.0

    found = search(ladders, 1e9, measure)
    assert found.picks == (2,) * 20
    assert len(asked) == 1


def test_where_nothing_fits_all_stays_as_it_was() -> None:
    ladders = _many(20)
    found = search(ladders, 1e-3, lambda _: 1.0)
    assert found.picks == (0,) * 20
    assert found.measured == 0.0


def test_a_wide_gap_between_two_choices_ends() -> None:
    ladders = [_ladder("only", 100, 0.001, 1.0)]
    found = search(ladders, 0.5, lambda picks: (0.0, 0.01, 0.9)[picks[0]])
    assert found.picks == (1,)
