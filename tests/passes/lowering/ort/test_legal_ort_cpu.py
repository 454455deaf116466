"""legal-ort-cpu."""

from __future__ import annotations

import pytest

from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu, _kernels
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import load, random, reasons


def test_accepts_what_runs() -> None:
    model = load(
        """main (int64[b, s] ids, float[b, s, 8] x, int64 keep) => (y, z) {
             y = com.microsoft.QuickGelu (x)
             z = ai.lepton.KeepLast (x, keep)
           }"""
    )
    done = LegalOrtCpu()
    done(model)
    assert done.refusals == []


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("com.microsoft.SwiGLU (x)", "it has no CPU kernel"),
        (
            "com.example.Strange (x)",
            "the domain com.example has no kernels, and the model has no body for it",
        ),
    ],
)
def test_refuses_ops_without_kernels(node: str, reason: str) -> None:
    done = LegalOrtCpu()
    done(load(f"main (float[b, s, 8] x) => (y) {{ y = {node} }}"))
    assert reasons(done) == [reason]
    assert done.must_not_refuse


def test_refuses_to_dequantize_a_whole_weight() -> None:
    text = """main (float[b, s, 256] x) => (y) {
      t = Transpose <perm = [1, 0]> (w)
      y = MatMul (x, t)
    }"""
    model = load(text, {"w": random(512, 256)})
    WeightInt8()(model)
    done = LegalOrtCpu()
    done(model)
    assert reasons(done) == ["a whole weight would be dequantized in each call"]


def test_a_runtime_for_gpus_is_not_asked_for_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu 1.31 crashes at that question before CUDA's libraries are loaded."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    def crash() -> None:
        pytest.fail("asked for kernels")

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(runtime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(runtime, "get_all_opkernel_def", crash)
    _kernels.cache_clear()
    try:
        test_accepts_what_runs()
        test_refuses_ops_without_kernels("com.microsoft.NoSuchOp (x)", "it has no CPU kernel")
    finally:
        _kernels.cache_clear()
