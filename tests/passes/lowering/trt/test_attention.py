"""lower-trt-attention: encoder attention with one bias for all layers that mask alike."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.lowering.trt.attention import LowerTrtAttention
from tests.passes.lowering.trt.reference import executable
from tests.passes.support import load, random, run

FEEDS = {
    **{name: random(2, 6, 16, seed=i) for i, name in enumerate("qkv")},
    "mask": np.array([[1] * 6, [1, 1, 1, 1, 0, 0]], np.int64),
}


def graph(window: int = -1, softcap: float = 0.0, causal: int = 0) -> str:
    node = f"""ai.lepton.Attention <q_num_heads: int = 2, kv_num_heads: int = 2,
        scale: float = 0.3, softcap: float = {softcap}, causal: int = {causal},
        window: int = {window}>"""
    return f"""agraph (float[batch, sequence, 16] q, float[batch, sequence, 16] k,
        float[batch, sequence, 16] v, int64[batch, sequence] mask)
        => (float[batch, sequence, 16] y)
    {{
        seen = Cast <to: int = 9> (mask)
        x = {node} (q, k, v, seen)
        y = {node} (x, k, v, seen)
    }}"""


@pytest.mark.parametrize(("window", "causal"), [(-1, 0), (3, 0), (-1, 1)])
def test_equals_the_op(window: int, causal: int) -> None:
    model = load(graph(window=window, causal=causal))
    expected = run(model, FEEDS)[0]
    done = LowerTrtAttention()
    done(model)
    assert done.fired == 2
    nodes = [n for n in model.graph if n.op_type == "TRT_Attention"]
    assert len(nodes) == 2
    assert nodes[0].inputs[3] is nodes[1].inputs[3]
    assert not [n for n in model.graph if n.domain == "ai.lepton"]
    found = run(executable(model), FEEDS)[0]
    real = FEEDS["mask"].astype(bool)
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5)


def test_refuses_softcap() -> None:
    model = load(graph(softcap=5.0))
    done = LowerTrtAttention()
    done(model)
    assert done.fired == 0
    assert len(done.refusals) == 2
    assert "softcap" in done.refusals[0].reason
