"""legal-ort-cuda."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from lepton_passes.lowering.ort._cuda_kernels import CONTRIB, STANDARD, Kernel
from lepton_passes.lowering.ort.legal_ort_cuda import LegalOrtCuda
from lepton_passes.lowering.ort.opset import OPSET, LowerOpset
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.experts import Settings, experts
from tests.passes.support import load, random, reasons

HALF = "float16[b, s, 8] x"
CACHE = "float16[b, 2, p, 16] past"
GQA = """com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
    (q, k, k, past, past, n, t"""


def _refused(text: str, opset: int = OPSET) -> list[str]:
    model = load(text)
    if opset == OPSET:
        LowerOpset()(model)
    done = LegalOrtCuda()
    done(model)
    return reasons(done)


def _attention(
    tail: str = ")", outputs: str = "y, pk, pv", cache: str = CACHE, q: str = "float16"
) -> str:
    return f"""main ({q}[b, s, 64] q, {q}[b, s, 32] k, {cache}, int32[b] n, int32 t,
      float16[b, 1, s, u] bias) => (y) {{ {outputs} = {GQA}{tail} }}"""


def test_accepts_what_runs() -> None:
    text = """main (int64[b, s] ids, int64[b, t] mask, float16[b, s, 8] x, int64 keep)
      => (y, n, z) {
      c = ai.lepton.KeepLast (x, keep)
      d = com.microsoft.QuickGelu (c)
      turned = Transpose <perm = [0, 2, 1]> (d)
      y = Cast <to = 1> (turned)
      seen = Cast <to = 6> (mask)
      n = ReduceSum (seen)
      z = Equal (ids, ids)
    }"""
    assert _refused(text) == []
    assert _refused(_attention()) == []
    assert LegalOrtCuda.must_not_refuse


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("com.microsoft.SwiGLU (x)", "the CUDA provider has no such kernel"),
        ("Hardmax (x)", "the CUDA provider has no such kernel"),
        (
            "com.example.Strange (x)",
            "the domain com.example has no kernels, and the model has no body for it",
        ),
        (
            "com.example.Constant (x)",
            "the domain com.example has no kernels, and the model has no body for it",
        ),
        (
            "com.microsoft.DynamicQuantizeMatMul (x, x, x)",
            "the GPU has no such kernel: take quantize: int4, or compute: fp16 without quantize",
        ),
    ],
)
def test_refuses_ops_without_kernels(node: str, reason: str) -> None:
    assert _refused(f"main ({HALF}) => (y) {{ y = {node} }}") == [reason]


def test_refuses_types_without_kernels() -> None:
    wide = "the CUDA provider has no kernel for bfloat16, only for float, float16"
    assert _refused("main (bfloat16[b, s, 8] x) => (y) { y = Ceil (x) }") == [wide]
    double = "the CUDA provider has no kernel for float, only for bfloat16, float16"
    cache = CACHE.replace("float16", "float")
    assert _refused(_attention(cache=cache, q="float")) == [double]


def test_refuses_forms_that_are_too_new() -> None:
    """The trap that lower-opset is for: the same graph at opset 24 runs on the CPU."""
    text = f"main ({HALF}) => (y) {{ y = MaxPool <kernel_shape = [2]> (x) }}"
    assert _refused(text) == []
    newer = "the CUDA provider has no kernel for the form of opset 22"
    assert _refused(text, opset=24) == [newer]


def test_refuses_what_the_kernel_of_attention_refuses() -> None:
    assert _refused(_attention(", , , , bias)")) == ["its CUDA kernel takes no attention_bias"]
    scores = _attention(outputs="y, pk, pv, scores")
    assert _refused(scores) == ["its CUDA kernel gives no scores"]
    odd = "its CUDA kernel takes heads of a multiple of 8, these have 12"
    assert _refused(_attention(cache=CACHE.replace("16] past", "12] past"))) == [odd]


def test_refuses_to_dequantize_a_whole_weight() -> None:
    text = """main (float[b, s, 256] x) => (y) {
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""
    model = load(text, {"w": random(512, 256)})
    WeightInt8()(model)
    LowerOpset()(model)
    done = LegalOrtCuda()
    done(model)
    assert reasons(done) == ["a whole weight would be dequantized in each call"]


def test_an_open_range_serves_its_own_opset_only() -> None:
    types = frozenset([ir.DataType.FLOAT])
    assert [Kernel(types, 13).serves(n) for n in (12, 13, 14)] == [False, True, False]
    assert [Kernel(types, 13, 20).serves(n) for n in (12, 19, 21)] == [False, True, False]


def test_the_table_names_ops_that_exist() -> None:
    own = {"SimplifiedLayerNormalization"}  # onnxruntime's, in the domain of ONNX
    assert {op for op in STANDARD if not onnx.defs.has(op)} == own
    assert all(kernels for kernels in STANDARD.values())
    assert "DynamicQuantizeMatMul" not in CONTRIB


def test_refuses_attention_over_another_cache_that_was_not_lowered() -> None:
    legal = LegalOrtCuda()
    legal(
        load(
            """main (float16[b, s, 64] q, float16[b, 2, t, 16] k, float16[b, 2, t, 16] v,
              bool[b, t] seen) => (y) {
      y = ai.lepton.SharedAttention <q_num_heads = 4, kv_num_heads = 2, scale = 0.3> (q, k, v, seen)
    }"""
        )
    )
    assert reasons(legal) == [
        "attention over another layer's cache was not lowered, and would read a buffer to its end"
    ]


def test_refuses_experts() -> None:
    legal = LegalOrtCuda()
    legal(experts(Settings())[0])
    assert reasons(legal) == ["experts with such a gate run for ort-cpu alone"]
