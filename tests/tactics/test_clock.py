"""Rivals run in turn; a clock of the test's own says how long they take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lepton_compile.tactics import clock as module
from lepton_compile.tactics.clock import ROUNDS, SLOW_ROUNDS, Clock, short, spread

FEEDS = {"x": np.zeros((1, 4), np.float32)}


class _Rivals:
    """Sessions that take as long as they are told, and the order in which they were run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **takes: Callable[[int], float]) -> None:
        self.now, self.order = 0.0, list[str]()
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)
        self.sessions = {name: _Session(self, name, each) for name, each in takes.items()}


class _Session:
    def __init__(self, rivals: _Rivals, name: str, takes: Callable[[int], float]) -> None:
        self._rivals, self._name, self._takes = rivals, name, takes

    def run(self, outputs: None, feeds: object) -> None:
        number = self._rivals.order.count(self._name)
        self._rivals.order.append(self._name)
        self._rivals.now += self._takes(number)


def test_they_take_turns_and_each_is_first_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    rivals = _Rivals(monkeypatch, a=lambda _: 1e-3, b=lambda _: 2e-3)
    times = Clock().times(rivals.sessions, FEEDS, "a", cold=True)
    assert times == {"a": pytest.approx([1e-3] * ROUNDS), "b": pytest.approx([2e-3] * ROUNDS)}
    assert "".join(rivals.order[:8]) == "ababbaab"


def test_long_calls_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rivals = _Rivals(monkeypatch, a=lambda _: 1e-3, b=lambda _: 1e-1)
    assert len(Clock().times(rivals.sessions, FEEDS, "a", cold=False)["a"]) == SLOW_ROUNDS


def test_who_seems_better_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rivals = _Rivals(monkeypatch, a=lambda _: 1e-3, b=lambda _: 9e-4)
    assert len(Clock().times(rivals.sessions, FEEDS, "a", cold=False)["a"]) == 3 * ROUNDS
    assert len(Clock().times(rivals.sessions, FEEDS, "b", cold=False)["a"]) == ROUNDS


def test_a_busy_machine_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rivals = _Rivals(monkeypatch, a=lambda n: 1e-3 + n * 1e-3, b=lambda _: 5e-4)
    times = Clock().times(rivals.sessions, FEEDS, "a", cold=False)
    assert len(times["a"]) == ROUNDS
    assert spread(times) > module.BUSY


def test_a_call_that_finds_its_weights_in_a_cache_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rivals = _Rivals(monkeypatch, a=lambda _: 1e-3, b=lambda n: 6e-4 if n == 3 else 1e-3)
    times = Clock().times(rivals.sessions, FEEDS, "a", cold=True)
    assert len(times["b"]) == ROUNDS
    assert min(times["b"]) == pytest.approx(6e-4)
    assert short(times["b"]) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("times", "expected"), [([3.0], 3.0), ([5.0, 1.0, 2.0], 1.0), ([4.0, 9.0, 1.0, 2.0], 2.0)]
)
def test_a_quarter_of_the_calls_take_no_longer(times: list[float], expected: float) -> None:
    assert short(times) == expected


def test_spread_is_of_the_least_steady() -> None:
    assert spread({"a": [1.0, 1.0, 9.0], "b": [2.0, 3.0, 4.0]}) == pytest.approx(1.5)
