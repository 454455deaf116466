"""Mixtures of experts, and attention sinks, from a folder to an engine that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import lepton_compile as lc
from lepton_compile.errors import PassError
from tests.plugins.cpu_library import needs_library
from tests.small import SIZES, saved

IDS = [5, 17, 3, 42, 8, 11, 64, 7, 90]
COMMON: dict[str, Any] = {
    **SIZES,
    "intermediate_size": 96,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts_per_tok": 2,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.1,
}


def _mixtral() -> Any:
    return transformers.MixtralConfig(**COMMON, num_local_experts=4)


def _qwen3_moe() -> Any:
    return transformers.Qwen3MoeConfig(**COMMON, num_experts=8, moe_intermediate_size=96)


def _gpt_oss() -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    return transformers.GptOssConfig(
        **COMMON, num_local_experts=4, rope_parameters=rope, sliding_window=4
    )


def _gemma4() -> Any:
    own = {"num_experts_per_tok", "num_key_value_heads"}
    return transformers.Gemma4TextConfig(
        **{name: value for name, value in COMMON.items() if name not in own},
        num_key_value_heads=2,
        global_head_dim=32,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        hidden_size_per_layer_input=0,
        enable_moe_block=True,
        num_experts=8,
        top_k_experts=3,
        moe_intermediate_size=64,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    )


KINDS = {
    "Gemma4ForCausalLM": _gemma4,
    "MixtralForCausalLM": _mixtral,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "GptOssForCausalLM": _gpt_oss,
}
# Least cosine of the logits: scores of a random router lie close, and rounding changes choices.
LEAST = {"none": 0.9999999, "int8": 0.98, "int4": 0.9}


@pytest.mark.parametrize(
    ("kind", "quantize", "kernels"),
    [
        ("Gemma4ForCausalLM", "int8", "auto"),
        ("MixtralForCausalLM", "none", "auto"),
        ("MixtralForCausalLM", "int4", "auto"),
        ("Qwen3MoeForCausalLM", "int8", "builtin"),
        ("GptOssForCausalLM", "none", "builtin"),
        ("GptOssForCausalLM", "int8", "auto"),
    ],
)
def test_experts_run_in_every_precision(
    kind: str, quantize: str, kernels: str, tmp_path: Path
) -> None:
    """Each layer's experts are one node, their weights rounded, and the router in fp32."""
    folder = saved(kind, KINDS[kind](), tmp_path / "model")
    options: dict[str, Any] = {
        "model": str(folder),
        "quantize": quantize,
        "kernels": kernels,
        "passes": {"expect": {"experts": 2, "attention": 2}},
    }
    planned = lc.plan(**options).engines[0]
    built = lc.build(output=tmp_path / "out", **options)
    op = "com.microsoft::MoE" if quantize == "none" else "com.microsoft::QMoE"
    if (quantize != "none", kernels) == (True, "auto"):
        op = "ai.lepton.cpu::QuantizedExperts"
    assert planned.ops[op] == 2
    assert planned.missing == []
    weights = {n: size for n, size in planned.files.items() if n.endswith(".bin")}
    for name, size in weights.items():  # a plan does not know the gaps between weights
        assert (built.path / name).stat().st_size == pytest.approx(size, rel=0.03)
    declined = [r["reason"] for r in planned.refusals]
    assert ("experts are chosen by it" in declined) == (quantize != "none")
    reference = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([IDS])).logits.numpy()
    with lc.load(built.path) as model:
        found = model.logits(IDS)
        steps = model.generate(IDS, max_new_tokens=6)
    cosine = (found * expected).sum() / np.sqrt((found**2).sum() * (expected**2).sum())
    assert cosine >= LEAST[quantize]
    if quantize == "none":
        assert np.abs(found - expected).max() <= 1e-4 * np.ptp(expected)
        with torch.no_grad():
            greedy = reference.generate(torch.tensor([IDS]), max_new_tokens=6, do_sample=False)
        assert list(steps.tokens) == greedy[0, len(IDS) :].tolist()


def test_without_a_kernel_experts_run_as_their_body(tmp_path: Path) -> None:
    """Of Gelu onnxruntime has none."""
    folder = saved("Gemma4ForCausalLM", _gemma4(), tmp_path / "model")
    planned = lc.plan(model=str(folder)).engines[0]
    assert (planned.ops["Loop"], planned.missing) == (2, [])
    built = lc.build(model=str(folder), output=tmp_path / "out", verify=False)
    reference = transformers.Gemma4ForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([IDS])).logits.numpy()
        greedy = reference.generate(torch.tensor([IDS]), max_new_tokens=6, do_sample=False)
    with lc.load(built.path) as model:
        found = model.logits(IDS)
        tokens = list(model.generate(IDS, max_new_tokens=6).tokens)
    assert np.abs(found - expected).max() <= 1e-4 * np.ptp(expected)
    assert tokens == greedy[0, len(IDS) :].tolist()


@needs_library
@pytest.mark.parametrize("quantize", ["int8", {"bits": 8, "cache": "int8"}], ids=str)
def test_experts_without_a_kernel_leave_small_caches_small(quantize: Any, tmp_path: Path) -> None:
    """Types of all values are found again for their body: those of caches are not what is computed
    in."""
    config = transformers.MixtralConfig(
        **{**COMMON, "head_dim": 32}, num_local_experts=4, hidden_act="relu"
    )
    folder = saved("MixtralForCausalLM", config, tmp_path / "model")
    made = lc.build({"model": str(folder), "quantize": quantize}, output=tmp_path / "out")
    (engine,) = made.manifest.engines
    assert engine["cache"]["dtype"] == ("float16" if quantize == "int8" else "int8")
    with lc.load(made.path, threads=1) as model:
        assert len(model.generate(IDS, max_new_tokens=4).tokens) == 4


def test_a_kernel_of_our_own_computes_what_the_body_does(tmp_path: Path) -> None:
    """The same weights of 4 bits, widened to fp32 where there is no kernel, as a report says."""
    folder = saved("Gemma4ForCausalLM", _gemma4(), tmp_path / "model")
    reason = "onnxruntime has no kernel with gelu_tanh as the gate; the experts are widened"
    logits, told = {}, {}
    for kernels in ("auto", "builtin"):
        options: dict[str, Any] = {"model": str(folder), "quantize": "int4", "kernels": kernels}
        told[kernels] = [r["reason"] for r in lc.plan(**options).engines[0].refusals]
        built = lc.build(output=tmp_path / kernels, verify=False, **options)
        with lc.load(built.path) as model:
            logits[kernels] = model.logits(IDS)
    assert [reason in told[kernels] for kernels in ("auto", "builtin")] == [False, True]
    ours, exact = logits.values()
    cosine = (ours * exact).sum() / np.sqrt((ours**2).sum() * (exact**2).sum())
    assert cosine >= 0.99  # inputs of layers are rounded to 8 bits, too


def _mixtral_gelu() -> Any:
    return transformers.MixtralConfig(**COMMON, num_local_experts=4, hidden_act="gelu")


@pytest.mark.parametrize(
    ("target", "config", "reason"),
    [
        ("ort-cuda", _mixtral_gelu, "experts with such a gate run for ort-cpu alone"),
        ("trt-rtx", _mixtral, "mixtures of experts are lowered for ONNX Runtime alone"),
    ],
)
def test_other_targets_refuse_experts_by_name(
    target: str, config: Any, reason: str, tmp_path: Path
) -> None:
    folder = saved("MixtralForCausalLM", config(), tmp_path / "model")
    options: dict[str, Any] = {"model": str(folder), "target": target, "shapes": {"sequence": 32}}
    assert reason in lc.plan(**options).engines[0].missing
    with pytest.raises(PassError, match="does not pass") as caught:
        lc.build(output=tmp_path / "out", check=False, verify=False, **options)
    assert reason in str(caught.value.found)
