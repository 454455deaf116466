"""Attention with a bias of scores on the CPU, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_plugins.attention.reference import biased_attention
from tests.plugins.cpu_library import DOMAIN, Array, needs_library, run

pytestmark = needs_library

# fp32 in another order than the reference in fp64.
EXACT = 2e-5
HIDDEN = np.float32(np.finfo(np.float32).min)
SCALE = 0.3


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(ours: Array, reference: Array) -> None:
    assert ours.shape == reference.shape
    largest = float(np.abs(reference).max(initial=1.0))
    assert np.abs(ours - reference).max(initial=0.0) <= EXACT * largest


def _flat(heads: Array) -> Array:
    """(batch, heads, keys, width) with the heads of a key side by side."""
    return heads.swapaxes(1, 2).reshape(heads.shape[0], heads.shape[2], -1)


def _attend(
    q: Array, k: Array, v: Array, bias: Array | None, mask: Array | None = None, heads: int = 4
) -> Array:
    attributes: dict[str, Any] = {"num_heads": heads, "scale": SCALE, "unidirectional": 0}
    return run(DOMAIN, "MultiHeadAttention", [q, k, v, mask, bias], **attributes)[0]


def _cached(
    q: Array, new: list[Array], past: list[Array], bias: Array, total: int, **more: Any
) -> list[Array]:
    rows, heads = q.shape[0], past[0].shape[1]
    attributes: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": heads,
        "do_rotary": 0,
        "rotary_interleaved": 0,
        "local_window_size": -1,
        "scale": SCALE,
        "softcap": 0.0,
        "epsilon": 0.0,
    }
    kept = more.pop("kept", None)
    lengths = more.pop("lengths", np.full(rows, total - 1, np.int32))
    inputs = [q, *new, *past, lengths, np.array([total], np.int32), *[None] * 4]
    inputs += [None if kept is None else np.array(kept, np.int64), bias]
    return run(DOMAIN, "GroupQueryAttention", inputs, outputs=3, **attributes | more)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 70),
    st.integers(1, 140),
    st.sampled_from([8, 24, 32, 64]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.booleans(),
    st.booleans(),
)
def test_any_shape(
    batch: int,
    heads: int,
    tokens: int,
    keys: int,
    width: int,
    shared: tuple[bool, bool, bool],
    padded: bool,
    laid_out: bool,
) -> None:
    q = _random(batch, tokens, heads * width)
    k, v = (_random(batch, heads, keys, width, seed=s) for s in (1, 2))
    sizes = [1 if one else size for one, size in zip(shared, (batch, heads, tokens), strict=True)]
    bias = 2 * _random(*sizes, keys, seed=3)
    mask = (_random(batch, keys, seed=4) < 1).astype(np.int32) if padded else None
    given_keys = (k, v) if laid_out else (_flat(k), _flat(v))
    ours = _attend(q, *given_keys, bias, mask, heads)
    _close(ours, biased_attention(q, k, v, SCALE, bias, mask))


def test_none_is_a_bias_of_zeros() -> None:
    q, k, v = (_random(2, 30, 64, seed=s) for s in range(3))
    zeros = np.zeros((1, 1, 1, 30), np.float32)
    assert np.array_equal(_attend(q, k, v, None), _attend(q, k, v, zeros))


def test_three_side_by_side() -> None:
    q, k, v = (_random(2, 20, 64, seed=s) for s in range(3))
    bias = _random(1, 4, 20, 20, seed=3)
    packed = np.concatenate([q, k, v], axis=2)
    attributes = {"num_heads": 4, "scale": SCALE, "unidirectional": 0}
    inputs = [packed, None, None, None, bias]
    (together,) = run(DOMAIN, "MultiHeadAttention", inputs, **attributes)
    assert np.array_equal(together, _attend(q, k, v, bias))


@pytest.mark.parametrize("hidden", [HIDDEN, -np.inf, np.float32(-1e9)])
@pytest.mark.parametrize("tokens", [1, 20])
def test_what_a_bias_hides(hidden: np.float32, tokens: int) -> None:
    """Also whole blocks of keys, and those in front."""
    q, (k, v) = _random(2, tokens, 64), [_random(2, 4, 200, 16, seed=s) for s in (1, 2)]
    bias = _random(2, 4, tokens, 200, seed=3)
    bias[0, :, :, :130], bias[1, :, :, 7:] = hidden, hidden
    ours = _attend(q, k, v, bias)
    _close(
        ours[:1],
        biased_attention(q[:1], k[:1, :, 130:], v[:1, :, 130:], SCALE, bias[:1, :, :, 130:]),
    )
    _close(ours[1:], biased_attention(q[1:], k[1:, :, :7], v[1:, :, :7], SCALE, bias[1:, :, :, :7]))


@pytest.mark.parametrize("hidden", [HIDDEN, -np.inf])
def test_a_query_without_keys_gets_zeros(hidden: np.float32) -> None:
    q, k, v = (_random(1, 9, 64, seed=s) for s in range(3))
    assert not _attend(q, k, v, np.full((1, 1, 9, 9), hidden, np.float32)).any()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    q, k, v = (_random(2, 100, 64, seed=s) for s in range(3))
    attributes = {"num_heads": 4, "scale": SCALE, "unidirectional": 0}
    inputs = [q, k, v, None, _random(1, 4, 100, 100, seed=3)]
    (one,) = run(DOMAIN, "MultiHeadAttention", inputs, threads=1, **attributes)
    (many,) = run(DOMAIN, "MultiHeadAttention", inputs, threads=threads, **attributes)
    assert np.array_equal(one, many)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 20),
    st.integers(0, 150),
    st.integers(0, 40),
    st.sampled_from([8, 32, 64]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_beside_a_cache(
    batch: int,
    heads: int,
    tokens: int,
    before: int,
    spare: int,
    width: int,
    shared: tuple[bool, bool, bool],
) -> None:
    """Keys are written behind those that are there; the bias alone says what is seen."""
    total = before + tokens
    q, *new = (_random(batch, tokens, heads * width, seed=s) for s in range(3))
    past = [_random(batch, heads, before + spare, width, seed=s) for s in (3, 4)]
    sizes = [1 if one else size for one, size in zip(shared, (batch, heads, tokens), strict=True)]
    bias = 2 * _random(*sizes, total, seed=5)
    y, *present = _cached(q, new, past, bias, total)
    by_head = [n.reshape(batch, tokens, heads, width).swapaxes(1, 2) for n in new]
    whole = [
        np.concatenate([p[:, :, :before], n], axis=2) for p, n in zip(past, by_head, strict=True)
    ]
    _close(y, biased_attention(q, *whole, SCALE, bias))
    assert all(np.array_equal(p[:, :, :total], w) for p, w in zip(present, whole, strict=True))


@pytest.mark.parametrize("kept", [0, 1, 3, 9])
@pytest.mark.parametrize("queries", [1, 5])
def test_the_last_queries_have_their_own_bias(kept: int, queries: int) -> None:
    q, *new = (_random(2, 5, 64, seed=s) for s in range(3))
    past = [_random(2, 4, 20, 16, seed=s) for s in (3, 4)]
    bias = _random(1, 4, queries, 25, seed=5)
    whole, some = (_cached(q, new, past, bias, 25, kept=n)[0] for n in (0, kept))
    _close(some, whole[:, -kept if 0 < kept < 5 else 0 :])


@pytest.mark.parametrize(
    "shape",
    [
        (1, 4, 9),
        (1, 4, 9, 8),
        (1, 4, 9, 10),
        (1, 4, 9, 1),
        (1, 4, 8, 9),
        (1, 3, 9, 9),
        (3, 4, 9, 9),
    ],
)
def test_refuses_a_bias_of_another_shape(shape: tuple[int, ...]) -> None:
    q, k, v = (_random(2, 9, 64, seed=s) for s in range(3))
    with pytest.raises(Exception, match="the bias is not"):
        _attend(q, k, v, np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ((2, 4, 9, 8), (2, 4, 9, 16)),
        ((2, 4, 9, 16), (2, 4, 8, 16)),
        ((2, 3, 9, 16), (2, 3, 9, 16)),
        ((1, 4, 9, 16), (1, 4, 9, 16)),
        ((2, 4, 9, 16), (2, 9, 64)),
        ((2, 9, 64), (2, 4, 9, 16)),
    ],
)
def test_refuses_heads_that_do_not_fit(keys: tuple[int, ...], values: tuple[int, ...]) -> None:
    with pytest.raises(Exception, match="do not fit query"):
        _attend(_random(2, 9, 64), _random(*keys), _random(*values), None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": np.zeros((1, 4, 2, 11), np.float32)}, "the bias is not"),
        ({"bias": np.zeros((1, 4, 3, 12), np.float32)}, "the bias is not"),
        ({"local_window_size": 4}, "goes with no window"),
        ({"lengths": np.array([12, 11], np.int32)}, "longer than the bias"),
        ({"lengths": np.array([11, 900], np.int32)}, "does not fit its cache"),
    ],
)
def test_refuses_beside_a_cache(change: dict[str, Any], words: str) -> None:
    q, *new = (_random(2, 2, 64, seed=s) for s in range(3))
    past = [_random(2, 4, 40, 16, seed=s) for s in (3, 4)]
    how = {"bias": np.zeros((1, 4, 2, 12), np.float32)} | change
    with pytest.raises(Exception, match=words):
        _cached(q, new, past, how.pop("bias"), 12, **how)
