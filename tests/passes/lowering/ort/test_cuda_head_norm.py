"""lower-cuda-head-norm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.emulation import Emulation
from lepton_passes.lowering.ort.cuda_head_norm import LowerCudaHeadNorm
from tests.passes.support import Arrays, assert_close, load, ops, random, reasons, run

NORM = "axis = -1, epsilon = 1e-6"
PACKED = """sizes = Constant <value_ints = [64, 32, 32]> ()
      q, k, v = Split <axis = -1> (x, sizes)"""
APART = """q = MatMul (x, wq)
      k = MatMul (x, wk)
      v = MatMul (x, wv)"""
BOTH = """parted = Constant <value_ints = [0, 0, -1, 16]> ()
      q4 = Reshape (q, parted)
      k4 = Reshape (k, parted)
      qn = RMSNormalization <{query}> (q4, gamma_q)
      kn = RMSNormalization <{key}> (k4, gamma_k)
      joined = Constant <value_ints = [0, 0, -1]> ()
      q3 = Reshape (qn, joined)
      k3 = Reshape (kn, joined)"""
WIDTHS = (("q", 64), ("k", 32), ("v", 32))
FEEDS: Arrays = {
    "x": random(1, 8, 128),
    "pk": random(1, 2, 0, 16, seed=3),
    "pv": random(1, 2, 0, 16, seed=4),
    "lengths": np.full(1, 7, np.int32),
    "total": np.array(8, np.int32),
}


def _model(
    projections: str = PACKED,
    query: str = NORM,
    key: str = NORM,
    reads: str = "q3, k3, v",
    more: str = "",
    width: int = 16,
) -> ir.Model:
    text = f"""main (float[b, s, 128] x, float[b, 2, p, {width}] pk, float[b, 2, p, {width}] pv,
          int32[b] lengths, int32 total) => (y, present_k, present_v{more and ", extra"}) {{
      {projections}
      {BOTH.format(query=query, key=key)}
      {more}
      y, present_k, present_v = com.microsoft.GroupQueryAttention <num_heads = 4,
        kv_num_heads = 2, scale = 0.3> ({reads}, pk, pv, lengths, total)
    }}"""
    weights: Arrays = {"gamma_q": random(16, seed=5), "gamma_k": random(16, seed=6)}
    weights |= {f"w{n}": random(128, w, seed=i) / 11 for i, (n, w) in enumerate(WIDTHS)}
    return load(text, {name: array for name, array in weights.items() if f" {name})" in text})


def _check(model: ir.Model) -> LowerCudaHeadNorm:
    """Held to what it was as the emulation says it, for the CPU has no such kernel."""
    before, lowered = run(model, FEEDS), LowerCudaHeadNorm()
    lowered(model)
    assert_close(before, run(Emulation()(model), FEEDS), CLOSE)
    return lowered


def test_takes_norms_and_the_split() -> None:
    model = _model()
    assert _check(model).fired == 1
    assert ops(model) == ["GroupQueryAttention"]
    (node,) = (n for n in model.graph if n.op_type == "GroupQueryAttention")
    names = [value.name if value is not None else "" for value in node.inputs]
    assert names[:3] == ["x", "", ""]
    assert names[14:] == ["gamma_q", "gamma_k"]
    assert node.attributes.get_float("qk_norm_epsilon") == pytest.approx(1e-6)


def test_takes_norms_of_projections_that_stand_apart() -> None:
    model = _model(APART)
    assert _check(model).fired == 1
    assert ops(model) == ["MatMul", "MatMul", "MatMul", "GroupQueryAttention"]


def test_a_split_that_others_read_stays() -> None:
    model = _model(more="extra = Neg (v)")
    assert _check(model).fired == 1
    assert ops(model) == ["Split", "Neg", "GroupQueryAttention"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"reads": "q3, k, v"}, "one of query and key has a norm, the other has none"),
        (
            {"key": "axis = -1, epsilon = 1e-5"},
            "the norms of query and key have different epsilons",
        ),
        (
            {"query": f"{NORM}, stash_type = 10"},
            "the norm runs over other axes than the last, or not in fp32",
        ),
        ({"more": "extra = Neg (qn)"}, "something else reads the norm, too"),
        ({"width": 512}, "heads of 512 are wider than 256"),
        ({"width": 32}, "the norm is not one of a head"),
        (
            {"projections": "q = Identity (pk) k = Identity (pk) v = Identity (pk)"},
            "what is normed is no projection of (batch, sequence, heads * width)",
        ),
    ],
)
def test_refuses(how: dict[str, str], reason: str) -> None:
    model = _model(**how)
    lowered = LowerCudaHeadNorm()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (0, [reason])
    assert {"RMSNormalization", "GroupQueryAttention"} <= set(ops(model))
