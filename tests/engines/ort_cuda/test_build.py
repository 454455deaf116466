"""An engine for the CUDA provider, built here and run with the CPU standing for the device.

What has no kernel for fp16 on the CPU runs there between casts, so numbers are those of fp16.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import lepton_compile as lc
from lepton_compile.artifact import Artifact
from lepton_compile.engines.probe import probe
from lepton_compile.errors import PassError
from lepton_compile.runtime import LoaderError, Model
from tests.export import zoo
from tests.export.harness import relative_error, save
from tests.small import llama, made, saved

# Of the range of the logits in fp32: rounding of fp16 over three layers.
FP16 = 0.02
IDS = [5, 17, 3, 42, 8, 61]


class Built:
    """An artifact for the CPU and for CUDA, and the PyTorch model it was made of."""

    def __init__(self, folder: Path, name: str, quantize: str = "none") -> None:
        decoder = name in zoo.DECODERS
        config = (zoo.DECODERS if decoder else zoo.ENCODERS)[name][0]
        task = "text-generation" if decoder else "feature-extraction"
        self.reference = save(config, task, folder / "model")
        self.artifact: Artifact = lc.build(
            model=str(folder / "model"),
            task=task,
            target=["ort-cpu", "ort-cuda"],
            compute="fp16",
            quantize=quantize,
            output=folder / "out",
            verify=False,
        )

    def graph(self) -> onnx.ModelProto:
        path = self.artifact.path / "engines" / "ort" / "ort-cuda.onnx"
        return onnx.load(path, load_external_data=False)

    def open(self, target: str = "ort-cuda") -> Model:
        return lc.load(self.artifact.path, target=target)


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp(request.param), request.param)


def test_the_manifest_says_what_was_built_and_that_nothing_ran(decoder: Built) -> None:
    cpu, cuda = decoder.artifact.manifest.engines
    assert (cpu["target"], cuda["target"]) == ("ort-cpu", "ort-cuda")
    assert (cuda["executed"], cuda["compute"], cuda["precision"]) == (False, "fp16", "fp16")
    assert cuda["requires"] == {"onnxruntime-gpu": ">=1.31"}
    assert cuda["cache"] == {"dtype": "float16"}
    past = [entry for entry in cuda["io"]["inputs"] if entry["name"].startswith("past_")]
    assert len(past) == 6
    assert {entry["dtype"] for entry in past} == {"float16"}
    given = {entry["name"]: entry["dtype"] for entry in cuda["io"]["outputs"]}
    assert (given["logits"], given["present.0.key"]) == ("float32", "float16")


def test_the_graph_is_one_for_the_gpu(decoder: Built) -> None:
    graph = decoder.graph()
    ops = [node.op_type for node in graph.graph.node]
    assert ops.count("GroupQueryAttention") == 3
    assert {o.domain: o.version for o in graph.opset_import}[""] == 23
    (attention, *_) = [n for n in graph.graph.node if n.op_type == "GroupQueryAttention"]
    tables = {t.name: t.data_type for t in graph.graph.initializer}
    turned = [tables[name] for name in attention.input[7:9] if name]
    assert all(dtype == onnx.TensorProto.FLOAT16 for dtype in turned)


def test_prefill_and_decode_in_shared_buffers(decoder: Built, stand_in: None) -> None:
    assert decoder.artifact.manifest.cache is not None
    assert decoder.artifact.manifest.cache["shared"]
    with decoder.open() as model, torch.no_grad():
        cache = model.new_cache(2, 32)
        held = [buffer.data_ptr() for *_, buffer in cache.buffers]
        rows = [IDS, IDS[:4]]
        found = cache.start(rows)
        for step in range(5):
            for row, logits in zip(rows, found, strict=True):
                expected = decoder.reference(torch.tensor([row])).logits[0, -1].numpy()
                assert relative_error(logits, expected) < FP16, step
            rows = [[*row, 7 + step + n] for n, row in enumerate(rows)]
            found = cache.step([row[-1] for row in rows], [True, True])
        assert held == [buffer.data_ptr() for *_, buffer in cache.buffers]
        assert {buffer.data_type() for *_, buffer in cache.buffers} == {"tensor(float16)"}


def test_whole_sequences_equal_the_neutral_graph(decoder: Built, stand_in: None) -> None:
    with decoder.open() as model, decoder.open("ort-cpu") as wide:
        found, expected = model.logits([IDS, IDS[:4]]), wide.logits([IDS, IDS[:4]])
    assert found.dtype == np.float32
    assert relative_error(found[0], expected[0]) < FP16
    assert relative_error(found[1, :4], expected[1, :4]) < FP16


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_encoders(name: str, tmp_path: Path, stand_in: None) -> None:
    built = Built(tmp_path, name)
    ops = [node.op_type for node in built.graph().graph.node]
    assert ops.count("MultiHeadAttention") == 3
    with built.open() as model, built.open("ort-cpu") as wide:
        feeds = {"input_ids": np.array([IDS, [*IDS[:4], 0, 0]])}
        feeds["attention_mask"] = np.array([[1] * 6, [1] * 4 + [0] * 2])
        (found,), (expected,) = (tuple(m.run(feeds).values())[:1] for m in (model, wide))
    assert relative_error(found[0], expected[0]) < FP16
    assert relative_error(found[1, :4], expected[1, :4]) < FP16


@pytest.mark.parametrize(("quantize", "bits"), [("int4", 4), ("int8", 8)])
def test_quantized_weights_are_blocked(
    quantize: str, bits: int, tmp_path: Path, stand_in: None
) -> None:
    built = Built(tmp_path, "llama", quantize)
    graph = built.graph().graph
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert {a.i for node in products for a in node.attribute if a.name == "bits"} == {bits}
    assert "DynamicQuantizeMatMul" not in {node.op_type for node in graph.node}
    with built.open() as model, built.open("ort-cpu") as wide:
        # The CPU rounds activations to 8 bits besides, which is the larger difference.
        assert relative_error(model.logits(IDS), wide.logits(IDS)) < 0.1


def test_weights_that_have_no_blocks_stay_in_half_precision(tmp_path: Path, stand_in: None) -> None:
    """Layers that read 48 columns are rounded, those that read 40 or 33 are not."""
    sizes = {"hidden_size": 40, "intermediate_size": 33, "num_attention_heads": 2, "head_dim": 24}
    config = llama(**sizes)
    source = str(saved("LlamaForCausalLM", config, tmp_path / "model"))
    out = lc.build(
        model=source, target="ort-cuda", quantize="int8", output=tmp_path / "out", verify=False
    ).path
    (file,) = out.rglob("*.onnx")
    graph = onnx.load(file, load_external_data=False).graph
    sizes_of = [
        {a.name: a.i for a in node.attribute if a.name in "KN"}
        for node in graph.node
        if node.op_type == "MatMulNBits"
    ]
    assert sizes_of == [{"K": 48, "N": 40}] * 2
    with lc.load(out, target="ort-cuda") as model, torch.no_grad():
        expected = made("LlamaForCausalLM", config)(torch.tensor([IDS])).logits.numpy()
        assert relative_error(model.logits(IDS), expected) < FP16


def test_arithmetic_without_kernels_is_refused(tmp_path: Path) -> None:
    save(zoo.DECODERS["llama"][0], "text-generation", tmp_path / "model")
    with pytest.raises(PassError, match="legal-ort-cuda") as caught:
        lc.build(
            model=str(tmp_path / "model"),
            target="ort-cuda",
            compute="fp32",
            output=tmp_path / "out",
            check=False,
        )
    assert "no kernel for float, only for bfloat16, float16" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_the_next_engine_runs_and_says_why(
    decoder: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", _no_driver)
    with lc.load(decoder.artifact.path) as model:
        assert model.target == "ort-cpu"
        assert "no NVIDIA driver" in model.passed_over["ort-cuda"]
    with pytest.raises(LoaderError, match="no NVIDIA driver"):
        lc.load(decoder.artifact.path, target="ort-cuda")


def _no_driver(name: str) -> object:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.gpu
@pytest.mark.skipif(not probe("ort-cuda").runs, reason=probe("ort-cuda").reason or "runs")
def test_on_a_gpu(decoder: Built) -> None:
    with decoder.open() as model, torch.no_grad():
        assert "CUDAExecutionProvider" in model.session.get_providers()
        cache = model.new_cache(1, 32)
        row, found = list(IDS), cache.start([IDS])
        for token in range(3, 9):
            expected = decoder.reference(torch.tensor([row])).logits[0, -1].numpy()
            assert relative_error(found[0], expected) < FP16
            row.append(token)
            found = cache.step([token], [True])
        assert {buffer.device_name() for *_, buffer in cache.buffers} == {"cuda"}
