"""lower-byte-cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.lowering.ort._kept_caches import OF_FILE
from lepton_passes.lowering.ort.byte_cache import SHARE, LowerByteCache
from lepton_passes.origin import mark_file
from tests.passes.support import LAYER, assert_close, load, ops, random, reasons, run
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

OURS = """ai.lepton.cpu.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3,
        do_rotary = 0, rotary_interleaved = 0, local_window_size = -1, softcap = 0.0,
        epsilon = 0.0>"""
THEIRS = """com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3>"""
CACHES = [f"past_key_values.{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")]
WIDTH, ROW = 32, 34


def _decoder(second: str = OURS) -> ir.Model:
    """A layer that is a function, and one that is not."""
    caches = ", ".join(f"float[b, 2, p, {WIDTH}] p{i}" for i in range(4))
    model = load(
        f"""main (float[b, s, 32] x, {caches}, int32[b] lengths, int32 total)
          => (y, k0, w0, k1, w1) {{
      h0, k0, w0 = ai.lepton.layer.block (x, p0, p1, lengths, total, wq)
      q1 = MatMul (h0, wo)
      y, k1, w1 = {second} (q1, , , p2, p3, lengths, total)
    }}
    {LAYER[:-2]}, "ai.lepton.cpu" : 1]>
    block (x, pk, pv, lengths, total, wq) => (y, ck, cv) {{
      q = MatMul (x, wq)
      y, ck, cv = {OURS} (q, , , pk, pv, lengths, total)
    }}""",
        {"wq": random(32, 256, scale=0.2), "wo": random(128, 256, scale=0.1)},
    )
    for value, name in zip(list(model.graph.inputs)[1:5], CACHES, strict=True):
        value.name = name
    inner = [v for f in model.functions.values() for v in f.inputs if v.name in ("pk", "pv")]
    for value in (*model.graph.outputs[1:], *inner):  # as export leaves them
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["b", 2, "p", WIDTH])
    return model


def _numbers(model: ir.Model, dtype: Any, row: int) -> list[np.ndarray]:
    """The output after three tokens from nothing."""
    feeds = {
        "x": random(1, 3, 32),
        **{name: np.zeros((1, 2, 9, row), dtype) for name in CACHES},
        "lengths": np.full(1, 2, np.int32),
        "total": np.array(3, np.int32),
    }
    return run(model, feeds)[:1]


def test_caches_are_bytes_from_end_to_end() -> None:
    model = _decoder()
    before = _numbers(model, np.float32, WIDTH)
    lowered = LowerByteCache()
    lowered(model)
    assert (lowered.fired, lowered.refusals) == (2, [])
    caches = (*list(model.graph.inputs)[1:5], *model.graph.outputs[1:5])
    assert [value.dtype for value in caches] == [ir.DataType.INT8] * 8
    assert {value.shape[3] for value in caches if value.shape is not None} == {ROW}
    assert model.graph.outputs[0].dtype != ir.DataType.INT8
    assert ops(model)[-2:] == ["MatMul", "GroupQueryAttention"]
    after = _numbers(model, np.int8, ROW)
    assert_close(before, after, lowered.tolerances["fp32"])
    assert not np.array_equal(before[0], after[0])


def test_a_second_time_changes_nothing() -> None:
    model = _decoder()
    LowerByteCache()(model)
    LowerByteCache()(model)
    assert {v.shape[3] for v in list(model.graph.inputs)[1:5] if v.shape is not None} == {ROW}


def test_a_model_without_caches_is_left_alone() -> None:
    model = load("main (float[b, 4] x) => (y) { y = Neg (x) }")
    lowered = LowerByteCache()
    lowered(model)
    assert (lowered.fired, lowered.refusals) == (0, [])


def test_refuses_what_something_else_reads() -> None:
    model = _decoder(second=THEIRS)
    lowered = LowerByteCache()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (
        0,
        ["it reads a cache, and is no attention of ours"],
    )


@pytest.mark.parametrize(("width", "said"), [(2048, "2048"), (80, "80"), ("w", "unknown")])
def test_refuses_heads_that_are_no_whole_blocks(width: int | str, said: str) -> None:
    model = _decoder()
    list(model.graph.inputs)[3].shape = ir.Shape(["b", 2, "p", width])
    lowered = LowerByteCache()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (
        0,
        [f"heads are no multiple of {SHARE} up to 1024 wide: {said}"],
    )
    assert lowered.must_not_refuse


def test_refuses_caches_of_a_file() -> None:
    """Callers hold them, in the type that it gives them."""
    model = _decoder()
    mark_file(model)
    lowered = LowerByteCache()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (0, [OF_FILE])
    assert {value.dtype for value in list(model.graph.inputs)[1:5]} == {ir.DataType.FLOAT}
