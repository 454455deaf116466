"""lower-shared-attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.cached_attention import LowerCachedAttention
from lepton_passes.lowering.ort.native_attention import LowerNativeAttention
from lepton_passes.lowering.ort.shared_attention import LowerSharedAttention
from tests.passes.support import LAYER, check, load, ops, random, reasons, run
from tests.plugins.cpu_library import needs_library

HEADS, KV, DIM, POSITIONS = 4, 2, 16, 32
TURN = f"q1 = RotaryEmbedding <num_heads = {HEADS}> (q, cos, sin)"


def _model(
    turn: str = TURN,
    window: int = -1,
    softcap: float = 0.0,
    causal: int = 1,
    angles: int = DIM // 2,
    mask: str = "",
) -> ir.Model:
    """One layer that keeps what it reads, and two more that read that with other queries."""
    table = np.outer(np.arange(POSITIONS), 0.5 ** np.arange(angles)).astype(np.float32)
    attributes = f"""q_num_heads = {HEADS}, kv_num_heads = {KV}, scale = 0.3,
        softcap = {softcap}, causal = {causal}, window = {window}"""
    text = f"""main (int64[b, s] ids, int64[b, t] mask, float[b, s, {HEADS * DIM}] x,
          float[b, s, {KV * DIM}] k, float[b, s, {KV * DIM}] v,
          float[b, {KV}, p, {DIM}] pk, float[b, {KV}, p, {DIM}] pv)
          => (z, present_k, present_v) {{
      seen = Cast <to = 9> (mask)
      at = ai.lepton.Positions (mask, ids)
      c = Gather (cos_table, at)
      n = Gather (sin_table, at)
      o, present_k, present_v = ai.lepton.CachedAttention <{attributes}>
        (x, k, v, seen, pk, pv)
      [second] y = ai.lepton.layer.block (o, present_k, present_v, seen, c, n)
      [third] z = ai.lepton.layer.block (y, present_k, present_v, seen, c, n)
    }}
    {LAYER}
    block (q, keys, values, {"given" if mask else "mask"}, cos, sin) => (y) {{
      {mask}
      {turn}
      y = ai.lepton.SharedAttention <{attributes}>
        ({"q1" if turn else "q"}, keys, values, mask)
    }}"""
    model = load(text, {"cos_table": np.cos(table), "sin_table": np.sin(table)})
    for value in _presents(model):  # as export leaves them
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(("b", KV, "t", DIM))
    for node in model.graph:
        if node.op_type == "block":
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return model


def _presents(model: ir.Model) -> Sequence[ir.Value]:
    return next(n for n in model.graph if n.op_type == "CachedAttention").outputs[1:]


def _feeds(new: int, past: int, batch: int = 2) -> dict[str, np.ndarray]:
    return {
        "ids": np.zeros((batch, new), np.int64),
        "mask": np.ones((batch, past + new), np.int64),
        "x": random(batch, new, HEADS * DIM),
        "k": random(batch, new, KV * DIM, seed=1),
        "v": random(batch, new, KV * DIM, seed=2),
        "pk": random(batch, KV, past, DIM, seed=3),
        "pv": random(batch, KV, past, DIM, seed=4),
    }


def _kernel(model: ir.Model) -> ir.Node:
    layer = next(f for f in model.functions.values() if f.name == "block")
    return next(n for n in layer if n.op_type == "GroupQueryAttention")


@pytest.mark.parametrize("feeds", [_feeds(6, 0), _feeds(1, 5), _feeds(3, 4, batch=1)])
@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (1, 0.0), (3, 0.0), (2, 2.0)])
def test_prefill_and_decode(feeds: dict[str, np.ndarray], window: int, softcap: float) -> None:
    model = _model(window=window, softcap=softcap)
    assert check(LowerSharedAttention(), model, feeds, CLOSE).fired == 2
    assert ops(model, "block") == ["GroupQueryAttention"]
    assert "Gather" not in ops(model)
    assert len(_kernel(model).outputs) == 1, "who asks for a present has it copied"


@needs_library
@pytest.mark.parametrize("feeds", [_feeds(6, 0), _feeds(1, 5), _feeds(3, 4)])
@pytest.mark.parametrize("window", [-1, 3])
def test_by_a_kernel_of_our_own(feeds: dict[str, np.ndarray], window: int) -> None:
    model, neutral = _model(window=window), _model(window=window)
    for each in (LowerCachedAttention(), LowerSharedAttention(), native := LowerNativeAttention()):
        each(model)
    assert (native.fired, reasons(native)) == (3, [])
    assert _kernel(model).domain == "ai.lepton.cpu"
    for found, expected in zip(run(model, feeds), run(neutral, feeds), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@needs_library
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("new", [1, 7])
def test_rows_of_different_length_in_a_larger_buffer(new: int, native: bool) -> None:
    """Right-padded rows and spare room: each row equals itself alone."""
    past = 7 - new
    whole, lengths = _feeds(new, past), (7, 4)
    neutral, lowered = _model(window=4), _model(window=4)
    passes = [LowerCachedAttention(), LowerSharedAttention()]
    for each in (*passes, LowerNativeAttention()) if native else passes:
        each(lowered)
    room = {
        k: np.concatenate([whole[k], np.zeros((2, KV, 12 - past, DIM), np.float32)], 2)
        for k in ("pk", "pv")
    }
    mask = np.array([[1] * length + [0] * (7 - length) for length in lengths])
    found = run(lowered, {**whole, **room, "mask": mask})[0]
    for row, length in enumerate(lengths):
        fresh = min(new, length)
        alone = {
            "ids": whole["ids"][:1, :fresh],
            "mask": np.ones((1, length), np.int64),
            **{k: whole[k][row : row + 1, :fresh] for k in ("x", "k", "v")},
            **{k: whole[k][row : row + 1, :, : length - fresh] for k in ("pk", "pv")},
        }
        expected = run(neutral, alone)[0][0]
        np.testing.assert_allclose(found[row][:fresh], expected, atol=1e-5)


def test_without_rotary_embedding() -> None:
    model = _model("")
    assert check(LowerSharedAttention(), model, _feeds(1, 5), CLOSE).fired == 2
    assert _kernel(model).attributes.get_int("do_rotary", 0) == 0


@pytest.mark.parametrize(
    ("turn", "angles", "reason"),
    [
        (TURN.replace("cos", "late").replace("q1", "late = Neg (cos) q1"), 8, "rows by position"),
        (TURN.replace("num_heads", "rotary_embedding_dim = 8, num_heads"), 4, "multiple of 8"),
    ],
)
def test_rotary_embedding_that_stays_outside(turn: str, angles: int, reason: str) -> None:
    model = _model(turn, angles=angles)
    done = check(LowerSharedAttention(), model, _feeds(6, 0), CLOSE)
    assert done.fired == 2
    assert [reason in each for each in reasons(done)] == [True]
    assert "RotaryEmbedding" in ops(model, "block")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"causal": 0}, "it is not causal"),
        ({"mask": "mask = Not (given)"}, "the mask is made inside the layer"),
    ],
)
def test_refuses(options: dict[str, str], reason: str) -> None:
    model = _model(**options)  # type: ignore[arg-type]
    done = check(LowerSharedAttention(), model, _feeds(6, 0), CLOSE)
    assert (done.fired, reasons(done)) == (0, [reason])


def test_refuses_heads_of_unknown_width() -> None:
    model = _model()
    for value in _presents(model):
        value.shape = None
    done = check(LowerSharedAttention(), model, _feeds(6, 0), CLOSE)
    assert (done.fired, reasons(done)) == (0, ["the width of its heads is not known"])


def test_refuses_an_old_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.30.0")
    done = LowerSharedAttention()
    done(_model())
    assert (done.fired, reasons(done)) == (
        0,
        ["onnxruntime before 1.31 has no kernel without a present"],
    )
    assert LowerSharedAttention(ours=True)(_model()).modified, "a kernel of our own"
    monkeypatch.setattr(onnxruntime, "__version__", "1.31.0")
    assert LowerSharedAttention()(_model()).modified
