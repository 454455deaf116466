"""The bodies of the dialect's ops that no model of the zoo covers alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_compile.errors import ExportError
from lepton_compile.export.dialect import DOMAIN, functions
from tests.passes.experts import EXPERTS, Settings, experts, routed
from tests.passes.support import Arrays, load, random, run

HEADS, KV, DIM = 4, 2, 8


def _reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, sinks: np.ndarray, window: int
) -> np.ndarray:
    """Grouped causal attention in which each head has a logit that no value belongs to."""
    new, total = q.shape[2], k.shape[2]
    k, v = (x.repeat(HEADS // KV, axis=1) for x in (k, v))
    scores = 0.3 * np.einsum("bhqd,bhkd->bhqk", q, k)
    distance = np.arange(total - new, total)[:, None] - np.arange(total)
    seen = (distance >= 0) & (distance < window) & mask[:, None, None].astype(bool)
    weights = np.where(seen, np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True) + np.exp(sinks)[:, None, None]
    out = np.einsum("bhqk,bhkd->bqhd", weights, v)
    return out.reshape(len(q), new, -1)


def _heads(x: np.ndarray, count: int) -> np.ndarray:
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("cached", [True, False])
def test_sinks(cached: bool) -> None:
    new, past, window = 3, 4 if cached else 0, 4
    op, more, out = ("CachedAttention", ", pk, pv", ", k1, v1") if cached else ("Attention", "", "")
    caches = f", float[b, {KV}, p, {DIM}] pk, float[b, {KV}, p, {DIM}] pv" if cached else ""
    model = load(
        f"""main (float[b, s, {HEADS * DIM}] q, float[b, s, {KV * DIM}] k,
              float[b, s, {KV * DIM}] v, bool[b, t] m{caches}) => (y{out}) {{
          y{out} = ai.lepton.{op} <q_num_heads = {HEADS}, kv_num_heads = {KV}, scale = 0.3,
            softcap = 0.0, causal = 1, window = {window}> (q, k, v, m{more}, sinks)
        }}""",
        {"sinks": (sinks := random(HEADS, seed=9))},
    )
    mask = np.ones((2, past + new), np.bool_)
    mask[1, 0] = False
    feeds = {
        "q": random(2, new, HEADS * DIM),
        **{n: random(2, new, KV * DIM, seed=i) for i, n in enumerate("kv", 1)},
        "m": mask,
    }
    if cached:
        feeds |= {n: random(2, KV, past, DIM, seed=i) for i, n in enumerate(("pk", "pv"), 3)}
    found = run(model, feeds)
    keys, values = (_heads(feeds[n], KV) for n in "kv")
    if cached:
        keys, values = (np.concatenate([feeds[p], x], 2) for p, x in (("pk", keys), ("pv", values)))
        np.testing.assert_array_equal(found[1], keys)
        np.testing.assert_array_equal(found[2], values)
    expected = _reference(_heads(feeds["q"], HEADS), keys, values, mask, sinks, window)
    real = mask[:, past:]  # a row that sees no key is padding
    np.testing.assert_allclose(found[0][real], expected[real], atol=1e-5)


def _activated(gate: np.ndarray, settings: Settings) -> np.ndarray:
    if settings.activation == "swish":
        found: np.ndarray = gate / (1 + np.exp(-settings.alpha * gate))
        return found
    function = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
        "relu": torch.relu,
    }[settings.activation]
    return function(torch.from_numpy(gate)).numpy()


def _experts_reference(feeds: Arrays, weights: Arrays, settings: Settings) -> np.ndarray:
    """Token by token, expert by expert."""
    out = np.zeros_like(feeds["x"])
    gate_ups, downs = (weights[n].reshape(EXPERTS, -1, weights[n].shape[1]) for n in ("gu", "dn"))
    for token, x in enumerate(feeds["x"]):
        for e, share in zip(feeds["i"][token], feeds["s"][token], strict=True):
            y = gate_ups[e] @ x + (weights["b1"][e] if settings.biases else 0)
            gate, up = (y[::2], y[1::2]) if settings.interleaved else np.split(y, 2)
            if settings.limit:
                gate, up = (
                    np.minimum(gate, settings.limit),
                    up.clip(-settings.limit, settings.limit),
                )
            z = _activated(gate, settings) * (up + settings.beta)
            out[token] += share * (downs[e] @ z + (weights["b2"][e] if settings.biases else 0))
    return out


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(interleaved=1),
        Settings(1.702, 1.0, 2.0, 1, biases=True),
        Settings(activation="gelu_tanh"),
        Settings(activation="gelu", limit=1.0),
        Settings(activation="relu", interleaved=1, biases=True),
    ],
    ids=str,
)
def test_experts(settings: Settings, tokens: int) -> None:
    """No token takes the last expert, as happens to one token all the time."""
    model, weights = experts(settings)
    feeds = routed(tokens, EXPERTS - 1)
    expected = _experts_reference(feeds, weights, settings)
    np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-4, atol=1e-4)


def test_nodes_of_one_op_agree_on_their_inputs() -> None:
    q, k, v, m, sinks = (ir.Value(name=n) for n in ("q", "k", "v", "m", "sinks"))
    with_sinks = ir.node("Attention", [q, k, v, m, sinks], domain=DOMAIN)
    without = ir.node("Attention", [q, k, v, m], domain=DOMAIN)
    assert len(functions([without, without])) == 1
    with pytest.raises(ExportError, match="attention sinks") as caught:
        functions([with_sinks, without])
    assert caught.value.found == "Attention"


@pytest.mark.parametrize("past", [0, 1, 3])
def test_new_mask(past: int) -> None:
    """Padding of a first pass; tokens that follow others are none, wherever rows are padded."""
    model = load(
        """main (int64[b, t] m, float[b, s, 2] x) => (y) { y = ai.lepton.NewMask (m, x) }"""
    )
    mask = np.array([[0, 1, 1, 1], [1, 1, 1, 0]])
    (found,) = run(model, {"m": mask, "x": random(2, 4 - past, 2)})
    expected = mask if past == 0 else np.ones((2, 4 - past))
    np.testing.assert_array_equal(found, expected)


def _marks(mask: np.ndarray, ids: np.ndarray, token: int) -> np.ndarray:
    """A number for each run of the token, by a loop."""
    marks = mask.copy()
    first = mask.shape[1] - ids.shape[1]
    for row, each in enumerate(ids):
        number = 1
        for at, one in enumerate(each):
            begins = one == token and (at == 0 or each[at - 1] != token)
            number += begins
            if one == token:
                marks[row, first + at] *= number
    return marks


@given(
    st.lists(st.lists(st.sampled_from([7, 1, 2]), min_size=6, max_size=6), min_size=1, max_size=3),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_marks(ids: list[list[int]], past: int, hidden: int) -> None:
    model = load(
        """main (int64[b, t] mask, int64[b, s] ids, int64 token) => (int64[b, t] y) {
          y = ai.lepton.MarkedMask (mask, ids, token)
        }"""
    )
    given_ids = np.array(ids)
    mask = np.ones((len(ids), past + 6), np.int64)
    mask[0, :hidden] = 0
    feeds = {"mask": mask, "ids": given_ids, "token": np.array(7)}
    np.testing.assert_array_equal(run(model, feeds)[0], _marks(mask, given_ids, 7))


@pytest.mark.parametrize("window", [-1, 1, 2, 5])
@pytest.mark.parametrize("past", [0, 3])
def test_attention_with_marks(window: int, past: int) -> None:
    new, total = 7, past + 7
    model = load(
        f"""main (float[b, s, {HEADS * DIM}] q, float[b, s, {KV * DIM}] k,
              float[b, s, {KV * DIM}] v, int64[b, t] m, float[b, {KV}, p, {DIM}] pk,
              float[b, {KV}, p, {DIM}] pv) => (y, k1, v1) {{
          y, k1, v1 = ai.lepton.MarkedAttention <q_num_heads = {HEADS}, kv_num_heads = {KV},
            scale = 0.3, softcap = 0.0, causal = 1, window = {window}> (q, k, v, m, pk, pv)
        }}"""
    )
    marks = np.ones((2, total), np.int64)
    marks[0, past + 1 : past + 4], marks[0, past + 5 :], marks[1, past : past + 6] = 2, 3, 2
    marks[1, total - 1] = 0
    feeds = {
        "q": random(2, new, HEADS * DIM),
        **{n: random(2, new, KV * DIM, seed=i) for i, n in enumerate("kv", 1)},
        **{n: random(2, KV, past, DIM, seed=i) for i, n in enumerate(("pk", "pv"), 3)},
        "m": marks,
    }
    found, key, value = run(model, feeds)
    scores = 0.3 * np.einsum(
        "bhqd,bhkd->bhqk", _heads(feeds["q"], HEADS), key.repeat(HEADS // KV, axis=1)
    )
    places = np.arange(total)
    distance = places[past:, None] - places
    own = marks[:, past:, None]
    seen = (distance >= 0) | ((own > 1) & (own == marks[:, None]))
    seen &= (distance < window) | (window < 0)
    weights = np.where((seen & (marks[:, None] > 0))[:, None], np.exp(scores), 0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    out = np.einsum("bhqk,bhkd->bqhd", weights, value.repeat(HEADS // KV, axis=1))
    real = marks[:, past:] > 0  # padding looks at nothing
    np.testing.assert_allclose(found[real], out.reshape(2, new, -1)[real], atol=1e-5)


TOKEN = 7
PLACING = load(
    """main (float[b, s, 3] e, int64[b, s] i, float[r, 3] rows, int64 token) => (y) {
         y = ai.lepton.Placed (e, i, rows, token) }"""
)


@given(arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 6))))
@example(np.zeros((2, 3), np.bool_))
@example(np.ones((2, 3), np.bool_))
@settings(max_examples=40)
def test_placed(here: np.ndarray) -> None:
    """In the order of places, through all rows of a batch; without any, a row goes nowhere."""
    embeddings = random(*here.shape, 3)
    rows = random(max(1, int(here.sum())), 3, seed=1)
    ids = np.where(here, TOKEN, np.arange(here.size).reshape(here.shape) + TOKEN + 1)
    expected = embeddings.copy()
    expected[here] = rows[: here.sum()]
    feeds = {"e": embeddings, "i": ids, "rows": rows, "token": np.array(TOKEN)}
    np.testing.assert_array_equal(run(PLACING, feeds)[0], expected)
