"""legal-trt: every silent trap of TensorRT is refused by name, and a clean graph passes."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_passes.lowering.trt.legal_trt import LegalTrt
from tests.passes.support import Arrays, load

Q = "float16[batch, 2, sequence, 16]"
HEADS = f"{Q} q, {Q} k, {Q} v"
MASK = "float16[batch, 1, sequence, sequence] m"


def reasons(text: str, weights: Arrays | None = None) -> list[str]:
    model = load(text, weights)
    done = LegalTrt()
    done(model)
    assert done.must_not_refuse
    return [r.reason for r in done.refusals]


def one(inputs: str, node: str, output: str = f"{Q} y") -> str:
    return f"agraph ({inputs}) => ({output}) {{ {node} }}"


@pytest.mark.parametrize(
    "text",
    [
        one(f"{HEADS}, {MASK}", "y = TRT_Attention (q, k, v, m)"),
        one(
            f"{HEADS}, int32[batch] n",
            'y = TRT_Attention <causal_kind: string = "lower_right"> (q, k, v, , , n)',
        ),
        one(HEADS, "y = Attention (q, k, v)"),
    ],
)
def test_clean(text: str) -> None:
    assert reasons(text) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (one(f"{HEADS}, int64[batch] n", "y = Attention (q, k, v, , , , n)"), "nonpad_kv_seqlen"),
        (one(HEADS, "y = Attention <softcap: float = 5.0> (q, k, v)"), "softcap"),
        (one(HEADS, "y = TRT_Attention <scale: float = 0.5> (q, k, v)"), "scale is ignored"),
        (one(HEADS, "y = TRT_Attention <is_causal: int = 1> (q, k, v)"), "is_causal is ignored"),
        (
            one(HEADS, "y = TRT_Attention <q_num_heads: int = 2> (q, k, v)"),
            "q_num_heads is ignored",
        ),
        (
            one(f"{HEADS}, int32[batch] n", "y = TRT_Attention (q, k, v, , , , , n)"),
            "kv_lengths is input 5",
        ),
        (
            one(
                f"{HEADS}, {MASK}",
                'y = TRT_Attention <causal_kind: string = "upper_left"> (q, k, v, m)',
            ),
            "exclude each other",
        ),
        (
            one(HEADS, 'y = TRT_Attention <causal_kind: string = "down"> (q, k, v)'),
            "causal_kind",
        ),
        (one(HEADS, "y = Attention <is_causal: int = 1> (q, k, v)"), ""),
    ],
)
def test_attention_traps(text: str, reason: str) -> None:
    found = reasons(text)
    if reason:
        assert any(reason in each for each in found), found
    else:
        assert all("upper left" in each for each in found)


CACHE = "float16[batch, 2, {length}, 16] past, float16[batch, 2, sequence, 16] new, int64[batch] at"


@pytest.mark.parametrize(
    ("length", "mode", "reason"),
    [("total", "linear", "no fixed length"), ("64", "circular", "only linear mode")],
)
def test_cache_traps(length: str, mode: str, reason: str) -> None:
    node = f'y = TensorScatter <axis: int = -2, mode: string = "{mode}"> (past, new, at)'
    text = one(CACHE.format(length=length), node, f"float16[batch, 2, {length}, 16] y")
    assert any(reason in each for each in reasons(text))


def quantized(block: int, *, zero: bool) -> str:
    inputs = "w, s, z" if zero else "w, s"
    node = f"DequantizeLinear <axis: int = 0, block_size: int = {block}> ({inputs})"
    return one("float16[batch, 64] x", f"d = {node}\n y = MatMul (x, d)", "float16[batch, 8] y")


@pytest.mark.parametrize(
    ("block", "scale", "zero", "reason"),
    [
        (32, np.ones((4, 8), np.float16), None, "block_size 32 is ignored"),
        (32, np.ones((2, 8), np.float32), None, "differ in type"),
        (32, np.ones((2, 8), np.float16), np.ones((2, 8), np.int8), "zero points are not zero"),
    ],
)
def test_quantized_traps(
    block: int, scale: np.ndarray, zero: np.ndarray | None, reason: str
) -> None:
    weights = {"w": np.ones((64, 8), np.int8), "s": scale}
    if zero is not None:
        weights["z"] = zero
    found = reasons(quantized(block, zero=zero is not None), weights)
    assert any(reason in each for each in found), found


@pytest.mark.parametrize("op", ["GroupQueryAttention", "MatMulNBits"])
def test_ops_without_their_plugin(op: str) -> None:
    text = one("float16[batch, 64] x", f"y = com.microsoft.{op} (x)", "float16[batch, 64] y")
    assert reasons(text)
