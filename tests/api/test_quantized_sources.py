"""Models whose weights are quantized already, from a folder to an engine that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import lepton_compile as lc
from lepton_compile.errors import CheckpointError, SourceError
from tests.api.test_experts import KINDS
from tests.export.packers import Tensors, pack
from tests.plugins.cpu_library import needs_library
from tests.small import byte_tokenizer, llama, made

IDS = [5, 17, 3, 42, 8, 11, 64, 7, 90]


def quantized(folder: Path, form: str, config: Any) -> Any:
    """A model with packed linear layers in ``folder``; returned with the values they stand for."""
    model = made("LlamaForCausalLM", config)
    model.save_pretrained(folder)
    stored, settings = load_file(folder / "model.safetensors"), {}
    for name in [name for name in stored if name.endswith("proj.weight")]:
        packed, values, settings = pack(form, stored.pop(name))
        layer = name.removesuffix("weight")
        stored |= {layer + part: tensor.contiguous() for part, tensor in packed.items()}
        model.get_parameter(name).data.copy_(values)
    written(folder, stored, settings)
    return model


def written(folder: Path, stored: Tensors, settings: dict[str, Any]) -> None:
    save_file(stored, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    text = json.dumps({**config, "quantization_config": settings})
    (folder / "config.json").write_text(text)


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor([IDS])).logits.numpy()
    return found


def of_engine(built: lc.Artifact) -> np.ndarray:
    with lc.load(built.path) as model:
        ids = np.array([IDS])
        return model.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]


def span(array: np.ndarray) -> float:
    return float(array.max() - array.min())


@pytest.mark.parametrize("form", ["fp8 in blocks", "awq"])
def test_the_values_are_compiled(form: str, tmp_path: Path) -> None:
    model = quantized(tmp_path / "model", form, llama())
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", verify=False)
    expected = logits(model)
    assert np.abs(of_engine(built) - expected).max() < 2e-5 * span(expected)
    report = json.loads((built.path / "report.json").read_text())
    assert any("quantized already" in note for note in report["capture"]["notes"])


def test_four_bits_stay_as_they_are(tmp_path: Path) -> None:
    """The engine's error is that of activations in 8 bits: the weights have none."""
    folder = tmp_path / "model"
    model = quantized(folder, "gptq", llama(vocab_size=260))
    byte_tokenizer(folder)
    head = {"match": "lm_head.*", "bits": "none"}
    precision = {"bits": 4, "embedding": "none", "rules": [head]}
    built = lc.build(model=str(folder), quantize=precision, output=tmp_path / "out")
    report = json.loads((built.path / "report.json").read_text())
    (rounding,) = [each for each in report["passes"] if each["name"] == "weight-int4"]
    assert rounding["error"] < 1e-5
    expected = logits(model)
    assert np.abs(of_engine(built) - expected).max() < 0.02 * span(expected)


PRECISION = {
    "bits": 4,
    "embedding": "none",
    "rules": [{"match": "lm_head.*", "bits": "none"}],
}


def error_of(folder: Path, output: Path, expected: np.ndarray, **recipe: Any) -> float:
    """The engine's error by the range of the logits."""
    built = lc.build(model=str(folder), output=output, verify=False, **recipe)
    return float(np.abs(of_engine(built) - expected).max()) / span(expected)


@pytest.mark.parametrize(
    ("form", "kernels", "op"),
    [
        ("awq", "builtin", "MatMulNBits"),
        pytest.param("gptq with zero points", "native", "QuantizedLinear", marks=needs_library),
        ("gptq out of order", "builtin", "MatMulNBits"),
        pytest.param("gptq out of order", "native", "QuantizedLinear", marks=needs_library),
    ],
)
def test_zero_points_stay_as_they_are(form: str, kernels: str, op: str, tmp_path: Path) -> None:
    """What is left is the error of activations in 8 bits."""
    folder = tmp_path / "model"
    model = quantized(folder, form, llama(vocab_size=260))
    byte_tokenizer(folder)
    expected = logits(model)
    recipe = {"quantize": PRECISION, "kernels": kernels}
    kept = error_of(folder, tmp_path / "kept", expected, **recipe)
    rounded = error_of(
        folder, tmp_path / "again", expected, **recipe, passes={"disable": ["weight-stored"]}
    )
    assert kept < 0.01
    assert rounded > 4 * kept
    report = json.loads((tmp_path / "kept" / "report.json").read_text())
    found = {each["name"]: each for each in report["passes"]}
    assert found["weight-stored"]["fired"] == 14
    assert found["weight-stored"]["error"] < 1e-6
    assert found["weight-int4"]["fired"] == 0
    assert found["packed-qkv"]["fired"] == found["packed-gate-up"]["fired"] == 2
    nodes = nodes_of(tmp_path / "kept")
    gathers = [node for node in nodes if node.op_type == "Gather" and "order" in node.input[1]]
    assert len(gathers) == (4 * 2 if (form, kernels) == ("gptq out of order", "builtin") else 0)
    layers = [node for node in nodes if node.op_type == op and has_shifts(node)]
    assert len(layers) == 4 * 2


def test_integers_that_are_kept_are_the_same_bytes_again(tmp_path: Path) -> None:
    quantized(tmp_path / "model", "gptq out of order", llama())
    options: dict[str, Any] = {"quantize": PRECISION, "check": False, "verify": False}
    one, other = (
        lc.build(model=str(tmp_path / "model"), output=tmp_path / name, **options)
        for name in ("one", "other")
    )
    for file in ("model.onnx", "weights.bin"):
        first, second = ((each.path / "engines/ort-cpu" / file) for each in (one, other))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("kernels", "op"),
    [
        ("builtin", "QMoE"),
        pytest.param("native", "QuantizedExperts", marks=needs_library),
    ],
)
def test_experts_keep_their_zero_points(kernels: str, op: str, tmp_path: Path) -> None:
    """Of a checkpoint that has them one by one."""
    folder, exact = tmp_path / "model", tmp_path / "exact"
    made("Qwen3MoeForCausalLM", KINDS["Qwen3MoeForCausalLM"]()).save_pretrained(folder)
    shutil.copytree(folder, exact)
    stored, settings = load_file(folder / "model.safetensors"), {}
    values = dict(stored)
    for name in [name for name in stored if ".experts." in name]:
        packed, values[name], settings = pack("awq", stored.pop(name))
        layer = name.removesuffix("weight")
        stored |= {layer + part: tensor.contiguous() for part, tensor in packed.items()}
    written(folder, stored, settings)
    save_file(values, exact / "model.safetensors", {"format": "pt"})
    expected = logits(transformers.Qwen3MoeForCausalLM.from_pretrained(exact).eval())
    rules = [{"match": name, "bits": "none"} for name in ("*.self_attn.*", "lm_head.*")]
    precision = {"bits": 4, "embedding": "none", "rules": rules}
    recipe = {"quantize": precision, "kernels": kernels}
    assert error_of(folder, tmp_path / "kept", expected, **recipe) < 0.02
    report = json.loads((tmp_path / "kept" / "report.json").read_text())
    (found,) = [each for each in report["passes"] if each["name"] == "weight-stored"]
    assert (found["fired"], found["refusals"]) == (4, [])
    assert found["error"] < 1e-6
    assert sum(node.op_type == op for node in nodes_of(tmp_path / "kept")) == 2


def has_shifts(node: onnx.NodeProto) -> bool:
    """Whether a layer has zero points, which are offsets in our kernels."""
    offsets = [each.i for each in node.attribute if each.name == "offsets"]
    return bool(offsets[0]) if offsets else len(node.input) > 3


def nodes_of(artifact: Path) -> list[onnx.NodeProto]:
    (file,) = (artifact / "engines" / "ort-cpu").glob("*.onnx")
    proto = onnx.load(file, load_external_data=False)
    return [*proto.graph.node, *(node for each in proto.functions for node in each.node)]


def test_a_plan_says_that_it_sees_no_zero_points(tmp_path: Path) -> None:
    said = "layers that keep zero points or offsets of the checkpoint are planned without them"
    for form, quantize, wanted in (
        ("awq", PRECISION, True),
        ("awq", "none", False),
        ("fp8 in blocks", PRECISION, False),
    ):
        quantized(tmp_path / form, form, llama())
        plan = lc.plan(model=str(tmp_path / form), quantize=quantize)
        assert (said in plan.notes) == wanted


@pytest.mark.parametrize(
    ("form", "quantize", "reason"),
    [
        ("awq", {**PRECISION, "group": 64}, "has groups of 32 columns, the recipe of 64"),
        ("awq", {**PRECISION, "bits": 8}, "the checkpoint has 4 bits, the recipe 8"),
    ],
)
def test_what_is_rounded_again_says_why(
    form: str, quantize: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    quantized(folder, form, llama(vocab_size=260))
    byte_tokenizer(folder)
    built = lc.build(model=str(folder), quantize=quantize, output=tmp_path / "out", verify=False)
    report = json.loads((built.path / "report.json").read_text())
    (found,) = [each for each in report["passes"] if each["name"] == "weight-stored"]
    assert found["fired"] == 0
    assert len(found["refusals"]) == 7  # of a layer, for both
    assert all(each["reason"].endswith(reason) for each in found["refusals"])
    assert all(len(each["layers"]) == 2 for each in found["refusals"])


def in_mxfp4(folder: Path) -> Any:
    """GPT-OSS as it is published in ``folder``; returned with the values that it stands for."""
    made_by = torch.Generator().manual_seed(0)
    model = made("GptOssForCausalLM", KINDS["GptOssForCausalLM"]())
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    for name in [name for name in stored if name.endswith(("experts.gate_up_proj", "down_proj"))]:
        experts, columns, rows = stored.pop(name).shape
        shape = (experts, rows, columns // 32, 16)
        blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=made_by)
        scales = torch.randint(118, 124, shape[:3], dtype=torch.uint8, generator=made_by)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        model.get_parameter(name).data.copy_(values)
    written(folder, stored, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    return model


def test_experts_in_mxfp4_are_read(tmp_path: Path) -> None:
    model = in_mxfp4(tmp_path / "model")
    options: dict[str, Any] = {"verify": False, "kernels": "builtin"}
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", **options)
    expected = logits(model)
    assert np.abs(of_engine(built) - expected).max() < 2e-5 * span(expected)


def test_what_a_packed_layer_lacks_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    quantized(folder, "fp8 in blocks", llama())
    stored = load_file(folder / "model.safetensors")
    del stored["model.layers.1.mlp.up_proj.weight"]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the model") as caught:
        lc.build(model=str(folder), output=tmp_path / "out")
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


def test_a_way_of_quantizing_that_is_not_read(tmp_path: Path) -> None:
    made("LlamaForCausalLM", llama()).save_pretrained(tmp_path)
    written(tmp_path, load_file(tmp_path / "model.safetensors"), {"quant_method": "bitsandbytes"})
    with pytest.raises(SourceError, match="quant_method") as caught:
        lc.plan(model=str(tmp_path))
    assert "gptq" in (caught.value.available or [])
