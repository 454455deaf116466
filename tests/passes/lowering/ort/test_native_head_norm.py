"""lower-native-head-norm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_head_norm import LowerNativeHeadNorm
from tests.passes.support import Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

WIDTH = 16
NORM = "epsilon = 1e-6, rms = 1"
PACKED = """sizes = Constant <value_ints = [64, 32, 32]> ()
      q, k, v = Split <axis = -1> (x, sizes)"""
APART = """q = MatMul (x, wq)
      k = MatMul (x, wk)
      v = MatMul (x, wv)"""
BOTH = """parted = Constant <value_ints = [0, 0, -1, 16]> ()
      q4 = Reshape (q, parted)
      k4 = Reshape (k, parted)
      qn = ai.lepton.cpu.Normalization <{query}> (q4, gamma_q)
      kn = ai.lepton.cpu.Normalization <{key}> (k4, gamma_k)
      joined = Constant <value_ints = [0, 0, -1]> ()
      q3 = Reshape (qn, joined)
      k3 = Reshape (kn, joined)"""


def _model(
    projections: str = PACKED,
    norms: str = BOTH,
    query: str = NORM,
    key: str = NORM,
    reads: str = "q3, k3, v",
    more: str = "",
    width: int = WIDTH,
) -> ir.Model:
    made = norms.format(query=query, key=key)
    text = f"""main (float[b, s, 128] x, float[b, 2, p, {width}] pk, float[b, 2, p, {width}] pv,
          int32[b] lengths, int32 total) => (y, present_k, present_v{more and ", extra"}) {{
      {projections}
      {made}
      {more}
      y, present_k, present_v = ai.lepton.cpu.GroupQueryAttention <num_heads = 4,
        kv_num_heads = 2, scale = 0.3, do_rotary = 0, rotary_interleaved = 0,
        local_window_size = -1, softcap = 0.0, epsilon = 0.0>
        ({reads}, pk, pv, lengths, total)
    }}"""
    weights: Arrays = {"gamma_q": random(16, seed=5), "gamma_k": random(16, seed=6)}
    weights |= {f"w{n}": random(128, w, seed=i) / 11 for i, (n, w) in enumerate(WIDTHS)}
    used = {name: array for name, array in weights.items() if f" {name})" in text}
    return load(text, used)


WIDTHS = (("q", 64), ("k", 32), ("v", 32))
FEEDS: Arrays = {
    "x": random(1, 3, 128),
    "pk": random(1, 2, 5, WIDTH, seed=3),
    "pv": random(1, 2, 5, WIDTH, seed=4),
    "lengths": np.full(1, 7, np.int32),
    "total": np.array(8, np.int32),
}


def test_takes_norms_and_the_split() -> None:
    model = _model()
    assert check(LowerNativeHeadNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["GroupQueryAttention"]


def test_takes_norms_of_projections_that_stand_apart() -> None:
    model = _model(APART)
    assert check(LowerNativeHeadNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["MatMul", "MatMul", "MatMul", "GroupQueryAttention"]


def test_a_split_that_others_read_stays() -> None:
    model = _model(more="extra = Neg (v)")
    assert check(LowerNativeHeadNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Split", "Neg", "GroupQueryAttention"]


def test_attention_without_norms_is_not_a_matter() -> None:
    model = _model(norms="", reads="q, k, v")
    native = LowerNativeHeadNorm()
    native(model)
    assert (native.fired, reasons(native)) == (0, [])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"reads": "q3, k, v"}, "one of query and key has a norm, the other has none"),
        ({"key": "epsilon = 1e-5, rms = 1"}, "the norms of query and key have different epsilons"),
        ({"query": "epsilon = 1e-6, rms = 0"}, "the norm takes a mean off, or has a bias"),
        ({"more": "extra = Neg (qn)"}, "something else reads the norm, too"),
        ({"width": 2048}, "heads of 2048 are wider than 1024"),
        ({"width": 32}, "the norm is not one of a head"),
        (
            {"projections": "q = Identity (pk) k = Identity (pk) v = Identity (pk)"},
            "what is normed is no projection of (batch, sequence, heads * width)",
        ),
    ],
)
def test_refuses(how: dict[str, str], reason: str) -> None:
    model = _model(**how)
    native = LowerNativeHeadNorm()
    native(model)
    assert (native.fired, reasons(native)) == (0, [reason])
    assert {"Normalization", "GroupQueryAttention"} <= set(ops(model))
