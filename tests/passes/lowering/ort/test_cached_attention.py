"""lower-cached-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.cached_attention import LowerCachedAttention
from tests.passes.support import LAYER, check, load, ops, random, reasons, run

HEADS, KV, DIM, POSITIONS = 4, 2, 16, 32
TURN = """q1 = RotaryEmbedding <num_heads = 4> (q, cos, sin)
          k1 = RotaryEmbedding <num_heads = 2> (k, cos, sin)"""
WHOLE = f"""sizes = Constant <value_ints = [{HEADS * DIM}, {KV * DIM}, {KV * DIM}]> ()
          q, k, v = Split <axis = -1> (x, sizes)"""
PIECES = """r = Relu (x)
          sizes = Constant <value_ints = [64, 32, 32]> ()
          k, q0, v = Split <axis = -1> (r, sizes)
          z = Concat <axis = -1> (k, q0, v)
          sizes2 = Constant <value_ints = [64, 32, 32]> ()
          q, k9, v9 = Split <axis = -1> (z, sizes2)
          k = Relu (k9)"""


def _model(
    turn: str = TURN,
    window: int = -1,
    softcap: float = 0.0,
    causal: int = 1,
    angles: int = DIM // 2,
    rows: str = "ai.lepton.Positions (mask, ids)",
    sinks: bool = False,
) -> ir.Model:
    table = np.outer(np.arange(POSITIONS), 0.5 ** np.arange(angles)).astype(np.float32)
    turned = "q1, k1" if "q1" in turn else "q, k"
    if "k1" not in turn:
        turned = turned.replace("k1", "k")
    sink = ", sinks" if sinks else ""
    text = f"""main (int64[b, s] ids, int64[b, t] mask, float[b, s, 128] x,
          float[b, {KV}, p, {DIM}] pk, float[b, {KV}, p, {DIM}] pv) => (y, present_k, present_v) {{
      seen = Cast <to = 9> (mask)
      at = {rows}
      c = Gather (cos_table, at)
      n = Gather (sin_table, at)
      [layer] y, present_k, present_v = ai.lepton.layer.block (x, seen, c, n, pk, pv{sink})
    }}
    {LAYER}
    block (x, mask, cos, sin, pk, pv{sink}) => (y, present_k, present_v) {{
      {WHOLE}
      {turn}
      y, present_k, present_v = ai.lepton.CachedAttention <q_num_heads = {HEADS},
        kv_num_heads = {KV}, scale = 0.3, softcap = {softcap}, causal = {causal},
        window = {window}> ({turned}, v, mask, pk, pv{sink})
    }}"""
    weights = {"cos_table": np.cos(table), "sin_table": np.sin(table)}
    return load(text, weights | ({"sinks": random(HEADS, seed=3)} if sinks else {}))


def _feeds(new: int, past: int, batch: int = 2) -> dict[str, np.ndarray]:
    return {
        "ids": np.zeros((batch, new), np.int64),
        "mask": np.ones((batch, past + new), np.int64),
        "x": random(batch, new, (HEADS + 2 * KV) * DIM),
        "pk": random(batch, KV, past, DIM, seed=1),
        "pv": random(batch, KV, past, DIM, seed=2),
    }


@pytest.mark.parametrize("feeds", [_feeds(6, 0), _feeds(1, 5), _feeds(3, 4, batch=1)])
@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (1, 0.0), (3, 0.0), (2, 2.0)])
def test_prefill_and_decode(feeds: dict[str, np.ndarray], window: int, softcap: float) -> None:
    model = _model(window=window, softcap=softcap)
    assert check(LowerCachedAttention(), model, feeds, CLOSE).fired == 1
    assert ops(model, "block") == ["GroupQueryAttention"]
    assert "Gather" not in ops(model)


@pytest.mark.parametrize("feeds", [_feeds(6, 0), _feeds(1, 5), _feeds(3, 4, batch=1)])
@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (3, 0.0), (2, 2.0)])
def test_sinks(feeds: dict[str, np.ndarray], window: int, softcap: float) -> None:
    model = _model(window=window, softcap=softcap, sinks=True)
    without = run(_model(window=window, softcap=softcap), feeds)[0]
    assert np.abs(run(model, feeds)[0] - without).max() > 0.01, "they make a difference"
    assert check(LowerCachedAttention(), model, feeds, CLOSE).fired == 1
    assert ops(model, "block") == ["GroupQueryAttention"]


def test_rows_of_different_length_in_a_larger_buffer() -> None:
    """Decode with right-padded rows and spare room: each row equals itself alone."""
    whole = _feeds(1, 6)
    lengths = (6, 3)
    neutral, lowered = _model(window=4), _model(window=4)
    LowerCachedAttention()(lowered)
    room = {
        k: np.concatenate([whole[k], np.zeros((2, KV, 5, DIM), np.float32)], 2)
        for k in ("pk", "pv")
    }
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3])
    found = run(lowered, {**whole, **room, "mask": mask})[0]
    for row, length in enumerate(lengths):
        alone = {
            "ids": whole["ids"][:1],
            "mask": np.ones((1, length + 1), np.int64),
            "x": whole["x"][row : row + 1],
            **{k: whole[k][row : row + 1, :, :length] for k in ("pk", "pv")},
        }
        np.testing.assert_allclose(found[row], run(neutral, alone)[0][0], atol=1e-5)


def test_pieces_that_are_changed_are_passed_apart() -> None:
    model = _model(TURN.replace("(k, cos", "(k0, cos").replace("k1 =", "k0 = Neg (k) k1 =", 1))
    assert check(LowerCachedAttention(), model, _feeds(6, 0), CLOSE).fired == 1
    assert ops(model, "block") == ["Split", "Neg", "GroupQueryAttention"]


def test_without_rotary_embedding() -> None:
    model = _model("")
    assert check(LowerCachedAttention(), model, _feeds(1, 5), CLOSE).fired == 1
    assert ops(model, "block") == ["GroupQueryAttention"]


@pytest.mark.parametrize(
    ("turn", "angles", "rows", "reason"),
    [
        (
            "q1 = RotaryEmbedding <num_heads = 4> (q, cos, sin)",
            8,
            None,
            "only one of query and key has a rotary embedding; it stays outside",
        ),
        (
            TURN.replace("(k, cos, sin)", "(k, sin, cos)"),
            8,
            None,
            "query and key are turned by different angles; it stays outside",
        ),
        (
            TURN.replace("num_heads", "rotary_embedding_dim = 8, num_heads"),
            4,
            None,
            "angles are no multiple of 8; the rotary embedding stays outside",
        ),
        (TURN, 8, "Identity (ids)", "cos and sin are not rows by position; they stay outside"),
    ],
)
def test_rotary_embedding_that_stays_outside(
    turn: str, angles: int, rows: str | None, reason: str
) -> None:
    model = _model(turn, angles=angles, rows=rows or "ai.lepton.Positions (mask, ids)")
    done = check(LowerCachedAttention(), model, _feeds(6, 0), CLOSE)
    assert (reasons(done), done.fired) == ([reason], 1)
    assert "RotaryEmbedding" in ops(model, "block")


def test_refuses_attention_to_the_future() -> None:
    done = check(LowerCachedAttention(), _model(causal=0), _feeds(6, 0), CLOSE)
    assert (reasons(done), done.fired) == (["it is not causal"], 0)
