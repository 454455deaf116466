"""lower-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE, SAME
from lepton_passes.lowering.ort.attention import LowerAttention
from tests.passes.support import LAYER, check, load, ops, random, reasons

MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
FEEDS = {**{n: random(2, 6, 16, seed=i) for i, n in enumerate("qkv")}, "mask": MASK}


def _model(kv_heads: int = 4, window: int = -1, causal: int = 0, softcap: float = 0.0) -> ir.Model:
    width = 4 * kv_heads
    return load(
        f"""main (float[b, s, 16] q, float[b, s, {width}] k, float[b, s, {width}] v,
              int64[b, s] mask) => (float[b, s, 16] y) {{
          m = Cast <to = 9> (mask)
          [one] h = ai.lepton.layer.block (q, k, v, m)
          [two] y = ai.lepton.layer.block (h, k, v, m)
        }}
        {LAYER}
        block (q, k, v, mask) => (y) {{
          y = ai.lepton.Attention <q_num_heads = 4, kv_num_heads = {kv_heads}, scale = 0.4,
            softcap = {softcap}, causal = {causal}, window = {window}> (q, k, v, mask)
        }}"""
    )


@pytest.mark.parametrize(("window", "causal"), [(-1, 0), (2, 0), (3, 0), (-1, 1)])
def test_padding_window_and_order(window: int, causal: int) -> None:
    model = _model(window=window, causal=causal)
    assert check(LowerAttention(), model, FEEDS, CLOSE).fired == 2
    assert ops(model, "block") == ["MultiHeadAttention"]
    assert not any(f.domain == "ai.lepton" for f in model.functions.values())


def _unmasked(causal: int = 0, kv_heads: int = 4, keys: str = "s", of: str = "float") -> ir.Model:
    row = f"{of}[b, {keys}, {4 * kv_heads}]"
    return load(
        f"""main ({of}[b, s, 16] q, {row} k, {row} v) => ({of}[b, s, 16] y) <{of}[b, s, 16] h> {{
          [one] h = ai.lepton.layer.block (q, k, v)
          [two] y = ai.lepton.layer.block (h, k, v)
        }}
        {LAYER}
        block (q, k, v) => (y) {{
          y = Attention <q_num_heads = 4, kv_num_heads = {kv_heads}, scale = 0.4,
            softcap = 0.0, is_causal = {causal}> (q, k, v)
        }}"""
    )


@pytest.mark.parametrize("causal", [0, 1])
def test_without_a_mask(causal: int) -> None:
    model, feeds = _unmasked(causal), {name: FEEDS[name] for name in "qkv"}
    assert check(LowerAttention(), model, feeds, CLOSE).fired == 2
    assert ops(model, "block") == ["MultiHeadAttention"]


def test_refuses_an_order_with_other_keys_than_queries() -> None:
    """The first query of ONNX's op sees the first key, that of the kernel all that are more."""
    model = _unmasked(causal=1, keys="t")
    feeds = {"q": random(2, 3, 16), "k": random(2, 5, 16), "v": random(2, 5, 16, seed=1)}
    done = check(LowerAttention(), model, feeds, SAME)
    assert reasons(done) == ["a causal order, with other keys than queries"]
    assert check(LowerAttention(), _unmasked(keys="t"), feeds, CLOSE).fired == 2


def test_refuses_fp64() -> None:
    feeds = {name: FEEDS[name].astype(np.float64) for name in "qkv"}
    done = check(LowerAttention(), _unmasked(of="double"), feeds, SAME)
    assert reasons(done) == ["the kernel has no fp64"]


def test_grouped_heads_without_a_mask_stay() -> None:
    done = LowerAttention()
    done(_unmasked(kv_heads=2))
    assert reasons(done) == ["the kernel has no grouped heads"]


def test_the_mask_is_prepared_once() -> None:
    model = _model(window=2)
    LowerAttention()(model)
    assert ops(model).count("Cast") == 2
    assert ops(model).count("Range") == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kv_heads": 2}, "the kernel has no grouped heads"),
        ({"softcap": 5.0}, "the kernel has no softcap"),
        ({"causal": 1, "window": 2}, "a causal window needs a bias on both sides"),
    ],
)
def test_refuses(settings: dict[str, int], reason: str) -> None:
    feeds = dict(FEEDS)
    if "kv_heads" in settings:
        feeds |= {n: random(2, 6, 8) for n in "kv"}
    done = check(LowerAttention(), _model(**settings), feeds, CLOSE)
    assert reasons(done) == [reason]


def test_refuses_sinks() -> None:
    model = _model()
    layer = next(f for f in model.functions.values() if f.name == "block")
    node = next(n for n in layer if n.op_type == "Attention")
    node.resize_inputs(5)
    node.replace_input_with(4, node.inputs[0])
    done = LowerAttention()
    done(model)
    assert (done.fired, reasons(done)) == (0, ["the kernel has no sinks"])


def test_refuses_a_mask_of_the_layer() -> None:
    model = _model()
    layer = next(f for f in model.functions.values() if f.name == "block")
    node = next(n for n in layer if n.op_type == "Attention")
    turned = ir.node("Identity", [node.inputs[3]])
    layer.graph.insert_before(node, turned)
    node.replace_input_with(3, turned.outputs[0])
    assert reasons(check(LowerAttention(), model, FEEDS, CLOSE)) == [
        "the mask is made inside the layer"
    ]
