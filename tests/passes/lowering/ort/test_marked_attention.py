"""lower-marked-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.marked_attention import LowerMarkedAttention
from tests.passes.support import LAYER, Arrays, check, load, ops, random, reasons, run
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

HEADS, KV, DIM, POSITIONS, TOKEN = 4, 2, 16, 32, 9
TURN = """q1 = RotaryEmbedding <num_heads = 4> (q, cos, sin)
          k1 = RotaryEmbedding <num_heads = 2> (k, cos, sin)"""
MARKS = "ai.lepton.MarkedMask (mask, ids, token)"


def _model(
    window: int = -1, causal: int = 1, marks: str = MARKS, dim: int = DIM, turn: str = TURN
) -> ir.Model:
    """Two layers, so that what is made once for all of them is passed to each."""
    table = np.outer(np.arange(POSITIONS), 0.5 ** np.arange(8)).astype(np.float32)
    width, kv = HEADS * dim, KV * dim
    past = ", ".join(f"float[b, {KV}, p, {dim}] {n}" for n in ("pk", "pv", "pk2", "pv2"))
    turned = "q1, k1" if turn else "q, k"
    names = ("present_k", "present_v", "present_k2", "present_v2")
    made = ", ".join(
        [
            *(f"float[b, s, {width}] {n}" for n in "yz"),
            *(f"float[b, {KV}, t, {dim}] {n}" for n in names),
        ]
    )
    text = f"""main (int64[b, s] ids, int64[b, t] mask, float[b, s, {width + 2 * kv}] x, {past})
          => ({made}) {{
      token = Constant <value_int = {TOKEN}> ()
      seen = {marks}
      at = ai.lepton.Positions (mask, ids)
      c = Gather (cos_table, at)
      n = Gather (sin_table, at)
      [first] y, present_k, present_v = ai.lepton.layer.block (x, seen, c, n, pk, pv)
      x2 = Neg (x)
      [second] z, present_k2, present_v2 = ai.lepton.layer.block (x2, seen, c, n, pk2, pv2)
    }}
    {LAYER}
    block (x, mask, cos, sin, pk, pv) => (y, present_k, present_v) {{
      sizes = Constant <value_ints = [{width}, {kv}, {kv}]> ()
      q, k, v = Split <axis = -1> (x, sizes)
      {turn}
      y, present_k, present_v = ai.lepton.MarkedAttention <q_num_heads = {HEADS},
        kv_num_heads = {KV}, scale = 0.3, softcap = 0.0, causal = {causal},
        window = {window}> ({turned}, v, mask, pk, pv)
    }}"""
    return load(text, {"cos_table": np.cos(table), "sin_table": np.sin(table)})


def _feeds(ids: list[list[int]], past: int = 0, dim: int = DIM) -> Arrays:
    batch, new = len(ids), len(ids[0])
    found: Arrays = {
        "ids": np.array(ids),
        "mask": np.ones((batch, past + new), np.int64),
        "x": random(batch, new, (HEADS + 2 * KV) * dim),
    }
    names = ("pk", "pv", "pk2", "pv2")
    return found | {n: random(batch, KV, past, dim, seed=i) for i, n in enumerate(names, 1)}


PICTURES = [[1, 9, 9, 9, 2, 3, 9, 9], [9, 9, 9, 9, 1, 1, 1, 9]]
CASES = [
    _feeds(PICTURES),
    _feeds([[1, 2, 3, 4], [5, 6, 7, 8]]),  # none
    _feeds([[1], [2]], past=5),
    _feeds([[2, 9, 9, 9, 3]], past=4),  # behind what was read before
]


@pytest.mark.parametrize("feeds", CASES)
@pytest.mark.parametrize("window", [-1, 1, 3])
def test_prefill_and_decode(feeds: Arrays, window: int) -> None:
    model = _model(window)
    assert check(LowerMarkedAttention(), model, feeds, CLOSE).fired == 2
    assert ops(model, "block") == ["GroupQueryAttention"]
    assert ops(model).count("GatherElements") == 1, "one bias for both layers"


def test_tokens_of_a_picture_see_each_other() -> None:
    """Or the test above would compare nothing."""
    feeds = _feeds(PICTURES)
    changed = {**feeds, "x": feeds["x"].copy()}
    changed["x"][0, 3] += 1.0  # the last token of the first picture
    before, after = (run(_model(), each)[0][0] for each in (feeds, changed))
    moved = np.abs(before - after).max(-1) > 1e-4
    assert moved.tolist() == [False, True, True, True, True, True, True, True]


def test_rows_of_different_length_in_a_larger_buffer() -> None:
    """Decode with right-padded rows and spare room: each row equals itself alone."""
    whole, lengths = _feeds([[1], [2]], past=6), (6, 3)
    neutral, lowered = _model(window=4), _model(window=4)
    LowerMarkedAttention()(lowered)
    spare = np.zeros((2, KV, 5, DIM), np.float32)
    names = ("pk", "pv", "pk2", "pv2")
    room = {k: np.concatenate([whole[k], spare], 2) for k in names}
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3])
    found = run(lowered, {**whole, **room, "mask": mask})[0]
    for row, length in enumerate(lengths):
        alone = {
            "ids": whole["ids"][row : row + 1],
            "mask": np.ones((1, length + 1), np.int64),
            "x": whole["x"][row : row + 1],
            **{k: whole[k][row : row + 1, :, :length] for k in names},
        }
        np.testing.assert_allclose(found[row], run(neutral, alone)[0][0], atol=1e-5)


def test_prompts_of_different_length_padded_on_the_right() -> None:
    neutral, lowered = _model(window=3), _model(window=3)
    LowerMarkedAttention()(lowered)
    feeds = _feeds(PICTURES)
    feeds["mask"][0, 5:] = 0
    found = run(lowered, feeds)[0][0, :5]
    alone = {k: v[:1, :5] if k in ("ids", "mask", "x") else v[:1] for k, v in feeds.items()}
    np.testing.assert_allclose(found, run(neutral, alone)[0][0], atol=1e-5)


def test_without_rotary_embedding() -> None:
    model = _model(turn="")
    assert check(LowerMarkedAttention(), model, CASES[0], CLOSE).fired == 2
    assert ops(model, "block") == ["GroupQueryAttention"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (_model(causal=0), "it is not causal"),
        (_model(marks="Identity (mask)"), "the marks are made elsewhere"),
        (_model(dim=12, turn=""), "heads of 12 are no multiple of 8"),
    ],
)
def test_refusals(model: ir.Model, reason: str) -> None:
    lowering = LowerMarkedAttention()
    lowering(model)
    assert lowering.fired == 0
    assert reasons(lowering) == [reason]
    assert "MarkedAttention" in ops(model, "block")
