"""lower-native-head-norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_head_norm import LowerNativeHeadNorm
from tests.passes.lowering.ort import head_norms
from tests.passes.support import Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

FEEDS: Arrays = {
    "x": random(1, 3, 128),
    "pk": random(1, 2, 5, 16, seed=3),
    "pv": random(1, 2, 5, 16, seed=4),
    "lengths": np.full(1, 7, np.int32),
    "total": np.array(8, np.int32),
}
_model = partial(
    head_norms.model,
    "ai.lepton.cpu.Normalization <epsilon = {epsilon}, rms = 1>",
    """ai.lepton.cpu.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3,
        do_rotary = 0, rotary_interleaved = 0, local_window_size = -1, softcap = 0.0,
        epsilon = 0.0>""",
)


@pytest.mark.parametrize(("how", "left"), head_norms.TAKEN)
def test_takes(how: dict[str, Any], left: list[str]) -> None:
    model = _model(**how)
    assert check(LowerNativeHeadNorm(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == left


def test_a_bias_stays_behind_the_norms() -> None:
    bias = """bias0 = Constant <value_floats = [0.0, -1.0, 0.0, 2.0, 0.0, 0.0, -99.0, 0.0]> ()
      shape = Constant <value_ints = [1, 1, 1, 8]> ()
      extra = Reshape (bias0, shape)"""
    model = _model(more=bias, behind=", , , , , , extra")
    assert check(LowerNativeHeadNorm(), model, FEEDS, CLOSE).fired == 1
    (node,) = (n for n in model.graph if n.op_type == "GroupQueryAttention")
    assert [v is not None for v in node.inputs[9:]] == [True, True, False, True]


SHARING = """main (float[b, s, 64] x, float[b, 2, p, 16] pk, float[b, 2, p, 16] pv,
      int32[b] lengths, int32 total) => (y) {
  parted = Constant <value_ints = [0, 0, -1, 16]> ()
  x4 = Reshape (x, parted)
  xn = ai.lepton.cpu.Normalization <epsilon = 0.01, rms = 1> (x4, gamma_q)
  joined = Constant <value_ints = [0, 0, -1]> ()
  x3 = Reshape (xn, joined)
  nothing = Constant <value_ints = [1, 0, 32]> ()
  none = ConstantOfShape (nothing)
  y = ai.lepton.cpu.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3,
    do_rotary = 0, rotary_interleaved = 0, local_window_size = -1, softcap = 0.0,
    epsilon = 0.0> (x3, none, none, pk, pv, lengths, total)
}"""


def test_queries_alone_over_the_cache_of_another_layer() -> None:
    model = load(SHARING, {"gamma_q": random(16, seed=5)})
    feeds = FEEDS | {"x": random(1, 3, 64)}
    feeds |= {name: random(1, 2, 8, 16, seed=seed) for seed, name in enumerate(("pk", "pv"))}
    assert check(LowerNativeHeadNorm(), model, feeds, CLOSE).fired == 1
    assert ops(model) == ["ConstantOfShape", "GroupQueryAttention"]


def test_attention_without_norms_is_not_a_matter() -> None:
    model = _model(norms="", reads="q, k, v")
    native = LowerNativeHeadNorm()
    native(model)
    assert (native.fired, reasons(native)) == (0, [])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        *head_norms.REFUSED,
        (
            {"query": "ai.lepton.cpu.Normalization <epsilon = 1e-6, rms = 0>"},
            "the norm takes a mean off, or has a bias",
        ),
        ({"width": 2048}, "heads of 2048 are wider than 1024"),
    ],
)
def test_refuses(how: dict[str, Any], reason: str) -> None:
    model = _model(**how)
    native = LowerNativeHeadNorm()
    native(model)
    assert (native.fired, reasons(native)) == (0, [reason])
    assert {"Normalization", "GroupQueryAttention"} <= set(ops(model))
