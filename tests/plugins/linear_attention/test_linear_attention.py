"""Linear attention on the CPU against the reference in fp64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_plugins.linear_attention.reference import attend_linearly
from lepton_plugins.linear_attention.spec import MOST_DEPTH, SPEC
from tests.plugins.cpu_library import DOMAIN, Array, needs_library, run

pytestmark = needs_library

TOLERANCE = SPEC.tolerance["float32"].relative
IN_PLACE = {1: 3}
SCALE = 0.3


def _random(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _unit(x: Array, depth: int) -> Array:
    """Keys and queries of length 1, as models have them: a correction never overshoots."""
    apart = x.reshape(*x.shape[:2], -1, depth)
    return np.asarray((apart / np.linalg.norm(apart, axis=-1, keepdims=True)).reshape(x.shape))


@dataclass
class Case:
    """Random inputs of one call."""

    batch: int = 1
    tokens: int = 1
    query_heads: int = 2
    key_heads: int = 2
    heads: int = 2
    depth: int = 16
    width: int = 16
    delta: bool = True
    by_depth: bool = False
    decay: float = 0.1
    seed: int = 0

    def inputs(self) -> list[Array]:
        """query, key, value, past and decay."""
        shape, count = (self.batch, self.tokens), self.heads
        query, key = (
            _unit(_random(*shape, heads * self.depth, seed=self.seed + s), self.depth)
            for s, heads in enumerate((self.query_heads, self.key_heads))
        )
        numbers = count * self.depth if self.by_depth else count
        return [
            query,
            key,
            _random(*shape, count * self.width, seed=self.seed + 2),
            _random(self.batch, count, self.depth, self.width, seed=self.seed + 3),
            -self.decay * np.abs(_random(*shape, numbers, seed=self.seed + 4)),
        ]

    def beta(self) -> Array | None:
        """How far a token corrects."""
        drawn = _random(self.batch, self.tokens, self.heads, seed=self.seed + 5)
        return np.asarray(1 / (1 + np.exp(-drawn))) if self.delta else None

    def check(self, *, in_place: bool = False, threads: int = 2) -> None:
        inputs, beta = self.inputs(), self.beta()
        shared = IN_PLACE if in_place else None
        found = run(
            DOMAIN,
            "LinearAttention",
            [*inputs, beta],
            outputs=2,
            threads=threads,
            in_place=shared,
            scale=SCALE,
        )
        query, key, value, past, decay = inputs
        wanted = attend_linearly(query, key, value, past, decay, beta, SCALE)
        for ours, truth in zip(found, wanted, strict=True):
            _close(ours, truth)


def _close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@settings(max_examples=120, deadline=None)
@given(
    batch=st.integers(1, 2),
    tokens=st.integers(1, 14),
    shared=st.sampled_from([(1, 1, 3), (2, 2, 2), (2, 1, 4), (1, 2, 4), (6, 3, 6), (20, 20, 20)]),
    depth=st.integers(1, 75),
    width=st.integers(1, 150),
    delta=st.booleans(),
    by_depth=st.booleans(),
    decay=st.sampled_from([0.0, 1e-3, 0.1, 3.0, 40.0, 300.0]),
    in_place=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_against_the_reference(
    batch: int,
    tokens: int,
    shared: tuple[int, int, int],
    depth: int,
    width: int,
    delta: bool,
    by_depth: bool,
    decay: float,
    in_place: bool,
    threads: int,
    seed: int,
) -> None:
    case = Case(batch, tokens, *shared, depth, width, delta, by_depth, decay, seed)
    case.check(in_place=in_place, threads=threads)


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("by_depth", [False, True])
@pytest.mark.parametrize("heads", [2, 16])
def test_the_longest_keys(tokens: int, by_depth: bool, heads: int) -> None:
    Case(1, tokens, heads, heads, heads, MOST_DEPTH, 136, by_depth=by_depth).check(in_place=True)


@pytest.mark.parametrize("delta", [False, True])
def test_errors_do_not_pile_up(delta: bool) -> None:
    # What is added for ever has to fade, but a correction holds the state where it is.
    Case(tokens=4096, delta=delta, decay=0.0 if delta else 0.01).check()


@pytest.mark.parametrize("by_depth", [False, True])
@pytest.mark.parametrize("first", [1, 3, 4, 8])
def test_a_text_may_come_in_pieces(first: int, by_depth: bool) -> None:
    case = Case(tokens=9, width=40, by_depth=by_depth)
    query, key, value, state, decay = case.inputs()
    beta = case.beta()
    assert beta is not None
    whole, last = run(
        DOMAIN, "LinearAttention", [query, key, value, state, decay, beta], 2, scale=SCALE
    )
    made = []
    for piece in (slice(0, first), slice(first, 9)):
        q, k, v, d, b = (x[:, piece].copy() for x in (query, key, value, decay, beta))
        y, state = run(DOMAIN, "LinearAttention", [q, k, v, state, d, b], 2, scale=SCALE)
        made.append(y)
    _close(np.concatenate(made, axis=1), whole)
    _close(state, last)


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("by_depth", [False, True])
def test_what_decays_to_nothing_is_zero(tokens: int, by_depth: bool) -> None:
    case = Case(tokens=tokens, by_depth=by_depth)
    query, key, value, past, decay = case.inputs()
    for state, by in ((past, -200.0), (past * np.float32(1e-37), -5.0)):
        inputs = [query, np.zeros_like(key), value, state, np.full_like(decay, by), case.beta()]
        y, present = run(DOMAIN, "LinearAttention", inputs, 2, scale=SCALE)
        assert not y.any()
        assert not present.any()


SHAPES = {
    "query": (1, 3, 32),
    "key": (1, 3, 32),
    "value": (1, 3, 32),
    "past": (1, 2, 16, 16),
    "decay": (1, 3, 2),
    "beta": (1, 3, 2),
}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"past": (2, 16, 16)}, "past has to be"),
        ({"past": (1, 2, 513, 16), "query": (1, 3, 1026), "key": (1, 3, 1026)}, "1 to 512"),
        ({"key": (1, 4, 32)}, "as the others"),
        ({"beta": (2, 3, 2)}, "as the others"),
        ({"query": (3, 32)}, "as the others"),
        ({"query": (1, 3, 33)}, "no multiple"),
        ({"key": (1, 3, 48)}, "no multiple"),
        ({"value": (1, 3, 16)}, "value does not fit"),
        ({"decay": (1, 3, 3)}, "decay has neither"),
        ({"beta": (1, 3, 1)}, "beta has not"),
    ],
)
def test_refuses(other: dict[str, tuple[int, ...]], reason: str) -> None:
    inputs = [_random(*shape, seed=0) for shape in (SHAPES | other).values()]
    with pytest.raises(Exception, match=reason):
        run(DOMAIN, "LinearAttention", inputs, outputs=2, scale=SCALE)
