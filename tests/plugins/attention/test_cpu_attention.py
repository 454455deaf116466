"""Attention on the CPU against the operators of onnxruntime that it stands in for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.cpu_library import DOMAIN, OTHER_PROCESSORS, Array, needs_library, run

pytestmark = needs_library

MICROSOFT = "com.microsoft"
# Both compute in fp32, in another order.
EXACT = 2e-5
EPSILON = 0.01


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(ours: Array, theirs: Array) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= EXACT * max(1.0, float(np.abs(theirs).max()))


class Cached:
    """Inputs of GroupQueryAttention: rows whose caches hold ``past`` tokens, ``new`` more."""

    def __init__(
        self, past: list[int], new: int, heads: int, kv_heads: int, width: int, room: int
    ) -> None:
        rows = len(past)
        self.heads, self.kv_heads, self.past, self.new = heads, kv_heads, past, new
        self.q = _random(rows, new, heads * width, seed=1)
        self.k = _random(rows, new, kv_heads * width, seed=2)
        self.v = _random(rows, new, kv_heads * width, seed=3)
        self.caches = [_random(rows, kv_heads, room, width, seed=s) for s in (4, 5)]
        self.lengths = np.array([p + new - 1 for p in past], np.int32)
        self.total = np.array([max(past) + new], np.int32)
        angles = np.outer(np.arange(room), 1 / 100 ** (np.arange(width // 2) / width * 2))
        self.tables = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]

    def run(
        self,
        domain: str,
        *,
        rotary: bool,
        packed: bool = False,
        norms: Sequence[Array] = (),
        kept: int | None = None,
        **more: Any,
    ) -> list[Array]:
        """Output and both caches, as far as they are filled."""
        inputs, attributes = self._given(domain, rotary, packed, norms, kept, more)
        y, key, value = run(domain, "GroupQueryAttention", inputs, outputs=3, **attributes)
        filled = [
            cache[row, :, : past + self.new]
            for cache in (key, value)
            for row, past in enumerate(self.past)
        ]
        return [y, *filled]

    def output(
        self,
        domain: str,
        *,
        rotary: bool,
        norms: Sequence[Array | None] = (),
        kept: int | None = None,
        tokens: Array | None = None,
        **more: Any,
    ) -> Array:
        """Output alone, of a node that has no other."""
        inputs, attributes = self._given(domain, rotary, False, norms, kept, more)
        if tokens is not None:
            inputs += [*[None] * (13 - len(inputs)), tokens]
        return run(domain, "GroupQueryAttention", inputs, **attributes)[0]

    def shares(self) -> None:
        """Read a cache of another layer, which has the new tokens, too."""
        self.k, self.v = (each[:, :0] for each in (self.k, self.v))

    def _given(
        self,
        domain: str,
        rotary: bool,
        packed: bool,
        norms: Sequence[Array | None],
        kept: int | None,
        more: dict[str, Any],
    ) -> tuple[list[Any], dict[str, Any]]:
        attributes = {
            "num_heads": self.heads,
            "kv_num_heads": self.kv_heads,
            "do_rotary": int(rotary),
            "rotary_interleaved": 0,
            "local_window_size": -1,
            "scale": 0.3,
            "softcap": 0.0,
        } | more
        if domain == DOMAIN:
            attributes = {"epsilon": EPSILON} | attributes
        three = [self.q, self.k, self.v]
        inputs = [np.concatenate(three, axis=2), None, None] if packed else three
        tables = self.tables if rotary else []
        inputs = [*inputs, *self.caches, self.lengths, self.total, *tables]
        if norms:
            inputs += [*[None] * (9 - len(inputs)), *norms]
        if kept is not None:
            inputs += [*[None] * (11 - len(inputs)), np.array(kept, np.int64)]
        return inputs, attributes

    def check(self, **how: Any) -> None:
        for ours, theirs in zip(self.run(DOMAIN, **how), self.run(MICROSOFT, **how), strict=True):
            _close(ours, theirs)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(
    ("past", "new"),
    [([0], 1), ([0], 70), ([5], 1), ([200], 1), ([700], 1), ([3, 130], 1), ([64], 3)],
)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width"), [(4, 1, 64), (2, 2, 32), (6, 2, 16), (16, 1, 8)]
)
def test_cached(
    past: list[int], new: int, heads: int, kv_heads: int, width: int, rotary: bool
) -> None:
    if rotary and width % 16:
        pytest.skip("onnxruntime's tables have a multiple of 8 angles")
    Cached(past, new, heads, kv_heads, width, 800).check(rotary=rotary)


@pytest.mark.parametrize("defined", OTHER_PROCESSORS)
@pytest.mark.parametrize("width", [8, 16, 24, 32, 40, 80])
def test_all_processors_give_the_same_bits(width: int, defined: str) -> None:
    for past, new in (([0], 70), ([130], 45), ([3, 90], 11), ([64], 3)):
        case = Cached(past, new, 6, 2, width, 180)
        for more in ({}, {"softcap": 3.0}, {"local_window_size": 9}):
            found = case.run(DOMAIN, rotary=False, defines=[defined], **more)[0]
            assert np.array_equal(found, case.run(DOMAIN, rotary=False, **more)[0]), (past, more)


@pytest.mark.parametrize(("past", "new"), [([0], 90), ([150], 1), ([20, 7], 1)])
@pytest.mark.parametrize(
    "more",
    [
        {"local_window_size": 16},
        {"local_window_size": 1},
        {"softcap": 2.0},
        {"rotary": True, "rotary_interleaved": 1},
        {"packed": True, "rotary": True},
        {"packed": True, "local_window_size": 33, "softcap": 5.0},
    ],
)
def test_cached_with_more(past: list[int], new: int, more: dict[str, Any]) -> None:
    Cached(past, new, 4, 2, 32, 160).check(**{"rotary": False, **more})


def _normed(x: Array, gamma: Array) -> Array:
    heads = x.reshape(*x.shape[:2], -1, len(gamma)).astype(np.float64)
    scale = 1 / np.sqrt((heads**2).mean(axis=-1, keepdims=True) + EPSILON)
    return (heads * scale * gamma).reshape(x.shape).astype(np.float32)


@pytest.mark.parametrize(("past", "new"), [([0], 90), ([150], 1), ([20, 7], 1)])
@pytest.mark.parametrize(
    "how", [{"rotary": True}, {"rotary": False}, {"rotary": True, "packed": True}]
)
def test_norms_of_heads_stand_in_front_of_the_rotary_embedding(
    past: list[int], new: int, how: dict[str, Any]
) -> None:
    cached = Cached(past, new, 4, 2, 48 if not how["rotary"] else 32, 160)
    norms = [_random(cached.caches[0].shape[3], seed=s) for s in (7, 8)]
    ours = cached.run(DOMAIN, norms=norms, **how)
    cached.q, cached.k = _normed(cached.q, norms[0]), _normed(cached.k, norms[1])
    for found, wanted in zip(ours, cached.run(DOMAIN, **how), strict=True):
        _close(found, wanted)


@pytest.mark.parametrize(("past", "new"), [([0], 90), ([150], 1), ([20, 7], 5)])
@pytest.mark.parametrize("kept", [0, 1, 3, 89, 90, 91])
@pytest.mark.parametrize("more", [{}, {"packed": True, "local_window_size": 12}])
def test_the_last_queries_alone(past: list[int], new: int, kept: int, more: dict[str, Any]) -> None:
    cached = Cached(past, new, 4, 2, 32, 160)
    all_of_them, *caches = cached.run(DOMAIN, rotary=True, **more)
    some, *others = cached.run(DOMAIN, rotary=True, kept=kept, **more)
    _close(some, all_of_them[:, -kept if 0 < kept < new else 0 :])
    assert all(np.array_equal(a, b) for a, b in zip(caches, others, strict=True))


@pytest.mark.parametrize(("past", "new"), [([0], 70), ([150], 1), ([20, 7], 1), ([64], 3)])
@pytest.mark.parametrize("more", [{}, {"local_window_size": 12, "softcap": 2.0}])
@pytest.mark.parametrize("rotary", [False, True])
def test_the_cache_of_another_layer(
    past: list[int], new: int, more: dict[str, Any], rotary: bool
) -> None:
    """Without new keys and values it holds them all, and stays as it is."""
    cached = Cached(past, new, 4, 2, 32, 200)
    cached.shares()
    ours, theirs = (cached.output(domain, rotary=rotary, **more) for domain in (DOMAIN, MICROSOFT))
    _close(ours, theirs)
    if new > 2:
        _close(cached.output(DOMAIN, rotary=rotary, kept=2, **more), theirs[:, -2:])


def test_queries_alone_have_norms_beside_the_cache_of_another_layer() -> None:
    cached, gamma = Cached([20, 7], 5, 4, 2, 32, 200), _random(32, seed=7)
    cached.shares()
    ours = cached.output(DOMAIN, rotary=True, norms=[gamma])
    cached.q = _normed(cached.q, gamma)
    _close(ours, cached.output(DOMAIN, rotary=True))


@given(
    past=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    new=st.integers(1, 70),
    kept=st.integers(1, 70),
    short=st.integers(0, 40),
    more=st.fixed_dictionaries(
        {
            "local_window_size": st.sampled_from([-1, 1, 12, 64]),
            "rounded": st.sampled_from([0, 1]),
            "rotary": st.booleans(),
        }
    ),
)
@settings(max_examples=60, deadline=None)
def test_some_queries_of_all_new_tokens(
    past: list[int], new: int, kept: int, short: int, more: dict[str, Any]
) -> None:
    """The last ones are what they are among the others, in rows of a prompt that are short, too."""
    kept = min(kept, new)
    cached = Cached(past, new, 4, 2, 32, 200)
    if not any(past):  # only a prompt's rows may be short
        cached.lengths[-1] -= min(short, new - 1)
    cached.shares()
    some, one = (cached.output(DOMAIN, kept=count, **more) for count in (kept, 1))
    cached.q = cached.q[:, -kept:]
    tokens = np.array(new, np.int64)
    assert np.array_equal(cached.output(DOMAIN, tokens=tokens, **more), some)
    assert np.array_equal(cached.output(DOMAIN, tokens=tokens, kept=1, **more), one)


@pytest.mark.parametrize(
    "tokens",
    [
        np.array(2, np.int64),
        np.array([5, 5], np.int64),
        np.array(np.iinfo(np.int64).min, np.int64),
    ],
)
def test_refuses_fewer_tokens_than_queries(tokens: Array) -> None:
    cached = Cached([10], 3, 4, 1, 32, 32)
    cached.shares()
    with pytest.raises(Exception, match="tokens is less than there are queries"):
        cached.output(DOMAIN, rotary=False, tokens=tokens)


@pytest.mark.parametrize("tokens", [14, 200, np.iinfo(np.int64).max])
def test_refuses_more_tokens_than_there_are(tokens: int) -> None:
    cached = Cached([10], 3, 4, 1, 32, 32)
    cached.shares()
    with pytest.raises(Exception, match="a row does not fit its cache"):
        cached.output(DOMAIN, rotary=False, tokens=np.array(tokens, np.int64))


def test_refuses_queries_left_out_beside_new_keys() -> None:
    cached = Cached([10], 3, 4, 1, 32, 32)
    with pytest.raises(Exception, match="or keys are given, too"):
        cached.output(DOMAIN, rotary=False, tokens=np.array(3, np.int64))


def test_refuses_values_without_keys() -> None:
    cached = Cached([10], 1, 4, 1, 32, 32)
    cached.k = cached.k[:, :0]
    with pytest.raises(Exception, match="do not fit query"):
        cached.output(DOMAIN, rotary=False)


def test_refuses_to_keep_less_than_nothing() -> None:
    with pytest.raises(Exception, match="no count of queries"):
        Cached([10], 1, 4, 1, 32, 32).run(DOMAIN, rotary=False, kept=-1)


@pytest.mark.parametrize("norms", [[32], [32, 16], [16, 32]])
def test_refuses_norms_that_do_not_fit(norms: list[int]) -> None:
    with pytest.raises(Exception, match="norms of heads do not fit"):
        Cached([10], 1, 4, 1, 32, 32).run(
            DOMAIN, rotary=False, norms=[_random(width) for width in norms]
        )


def test_rows_of_a_prompt_may_be_short() -> None:
    cached = Cached([0, 0, 0], 40, 4, 2, 16, 64)
    cached.lengths[:] = [39, 11, 0]
    ours, theirs = (cached.run(domain, rotary=True)[0] for domain in (DOMAIN, MICROSOFT))
    for row, length in enumerate(cached.lengths + 1):
        _close(ours[row, :length], theirs[row, :length])


def test_scale_of_0_is_that_of_the_width() -> None:
    cached = Cached([9], 5, 2, 1, 64, 32)
    for ours, theirs in zip(
        cached.run(DOMAIN, rotary=False, scale=0.0),
        cached.run(DOMAIN, rotary=False, scale=0.125),
        strict=True,
    ):
        assert np.array_equal(ours, theirs)


def test_large_scores_do_not_overflow() -> None:
    cached = Cached([100], 1, 4, 1, 32, 128)
    cached.q *= 1e3
    cached.check(rotary=False)


def _encoder(domain: str, q: Array, k: Array, v: Array, mask: Array | None, **more: Any) -> Array:
    attributes = {"num_heads": 4, "scale": 0.25, "unidirectional": 0} | more
    inputs = [q, k, v, mask] if domain == DOMAIN else [q, k, v, None, mask]
    return run(domain, "MultiHeadAttention", inputs, **attributes)[0]


@pytest.mark.parametrize("tokens", [1, 7, 64, 65, 130])
@pytest.mark.parametrize("width", [32, 96, 160])
@pytest.mark.parametrize("causal", [0, 1])
def test_encoder(tokens: int, width: int, causal: int) -> None:
    q, k, v = (_random(3, tokens, width, seed=s) for s in range(3))
    mask = np.ones((3, tokens), np.int32)
    mask[1, (tokens + 1) // 2 :] = 0
    mask[2, 1:] = 0
    for shown in (None, mask):
        ours = _encoder(DOMAIN, q, k, v, shown, unidirectional=causal)
        _close(ours, _encoder(MICROSOFT, q, k, v, shown, unidirectional=causal))


def test_encoder_takes_all_three_side_by_side() -> None:
    q, k, v = (_random(2, 20, 64, seed=s) for s in range(3))
    apart = _encoder(DOMAIN, q, k, v, None)
    attributes = {"num_heads": 4, "scale": 0.25, "unidirectional": 0}
    packed = np.concatenate([q, k, v], axis=2)
    (together,) = run(DOMAIN, "MultiHeadAttention", [packed], **attributes)
    assert np.array_equal(apart, together)


@pytest.mark.parametrize("tokens", [1, 7, 65])
@pytest.mark.parametrize("keys", [1, 64, 65, 130])
def test_keys_of_another_text(tokens: int, keys: int) -> None:
    q = _random(3, tokens, 64)
    k, v = (_random(3, keys, 64, seed=s) for s in (1, 2))
    mask = np.ones((3, keys), np.int32)
    mask[1, (keys + 1) // 2 :] = 0
    mask[2, 1:] = 0
    for shown in (None, mask):
        _close(_encoder(DOMAIN, q, k, v, shown), _encoder(MICROSOFT, q, k, v, shown))


def test_refuses_a_mask_of_another_length_than_the_keys() -> None:
    q, k = _random(1, 5, 64), _random(1, 9, 64)
    with pytest.raises(Exception, match=r"the mask is not \(batch, keys\)"):
        _encoder(DOMAIN, q, k, k, np.ones((1, 5), np.int32))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    q, k, v = (_random(2, 100, 64, seed=s) for s in range(3))
    attributes = {"num_heads": 4, "scale": 0.25, "unidirectional": 1}
    (one,) = run(DOMAIN, "MultiHeadAttention", [q, k, v], threads=1, **attributes)
    (many,) = run(DOMAIN, "MultiHeadAttention", [q, k, v], threads=threads, **attributes)
    assert np.array_equal(one, many)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": np.array([800], np.int32)}, "does not fit its cache"),
        ({"lengths": np.array([-1], np.int32)}, "does not fit its cache"),
        ({"k": _random(1, 1, 16)}, "do not fit query"),
        ({"caches": [_random(1, 1, 32, 16)] * 2}, "the cache does not fit"),
        ({"q": _random(1, 1, 4 * 12), "k": _random(1, 1, 12), "v": _random(1, 1, 12)}, "of 8"),
    ],
)
def test_refuses(change: dict[str, Any], words: str) -> None:
    cached = Cached([10], 1, 4, 1, 32, 32)
    for name, value in change.items():
        setattr(cached, name, value)
    with pytest.raises(Exception, match=words):
        cached.run(DOMAIN, rotary=False)


@pytest.mark.parametrize(("outputs", "left_out"), [(1, []), (3, [1, 2]), (3, [2])])
def test_refuses_to_give_no_cache(outputs: int, left_out: list[int]) -> None:
    inputs, attributes = Cached([10], 1, 4, 1, 32, 32)._given(DOMAIN, False, False, (), None, {})
    with pytest.raises(Exception, match="an output is left out"):
        run(DOMAIN, "GroupQueryAttention", inputs, outputs, left_out=left_out, **attributes)


@pytest.mark.parametrize("length", [9, 199_999])
def test_refuses_a_past_that_is_longer_than_its_cache(length: int) -> None:
    cached = Cached([3], 1, 4, 1, 32, 4)
    cached.lengths[:], cached.total[:] = length, length + 1
    with pytest.raises(Exception, match="does not fit its cache"):
        cached.run(DOMAIN, rotary=False)


@pytest.mark.parametrize("place", [0, 1])
def test_keys_or_values_alone_in_place(place: int) -> None:
    inputs, attributes = Cached([10], 1, 4, 1, 32, 32)._given(DOMAIN, True, False, (), None, {})
    apart = run(DOMAIN, "GroupQueryAttention", inputs, 3, **attributes)
    together = run(
        DOMAIN, "GroupQueryAttention", inputs, 3, in_place={1 + place: 3 + place}, **attributes
    )
    for ours, theirs in zip(together, apart, strict=True):
        # Behind the tokens lies what was there, or nothing.
        assert np.array_equal(ours[..., :11, :], theirs[..., :11, :])


@pytest.mark.parametrize("new", [1, 40])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
@pytest.mark.parametrize("what", ["q", "k", "v"])
def test_what_is_no_number_does_not_pass_for_one(what: str, softcap: float, new: int) -> None:
    cached = Cached([20], new, 4, 2, 16, 80)
    getattr(cached, what)[0, 0, :16] = np.nan  # of the first new token, and the first head
    y = cached.run(DOMAIN, rotary=False, softcap=softcap)[0].reshape(new, 4, 16)
    heads = 1 if what == "q" else 2  # that share these keys
    tokens = 1 if what == "q" else new
    assert np.isnan(y[:tokens, :heads]).all()
    assert np.isfinite(y[:, heads:]).all()
    assert np.isfinite(y[tokens:]).all()


def test_scale_of_0_is_that_of_the_width_in_encoders_too() -> None:
    q, k, v = (_random(2, 5, 64, seed=s) for s in range(3))
    _close(*(_encoder(domain, q, k, v, None, scale=0.0) for domain in (DOMAIN, MICROSOFT)))
