"""Layers that read the cache of another for the CUDA provider, the CPU standing for the device."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

import lepton_compile as lc
from tests.export.harness import relative_error, save
from tests.export.zoo import SHARING

ROWS = [[5, 17, 3, 42, 8, 61], [9, 2, 33]]
STEPS = 12  # beyond the window
FP16 = 0.03
# The CPU's kernel has no norms of heads inside.
BUILD = {
    "target": "ort-cuda",
    "verify": False,
    "check": False,
    "passes": {"disable": ["lower-cuda-head-norm"]},
}


def _attention(made: lc.Artifact) -> list[onnx.NodeProto]:
    graph = onnx.load(made.path / "engines/ort-cuda/model.onnx", load_external_data=False).graph
    return [node for node in graph.node if node.op_type == "GroupQueryAttention"]


@pytest.mark.parametrize("name", SHARING)
def test_they_read_the_buffers_of_others(name: str, tmp_path: Path, stand_in: None) -> None:
    config, _, caches = SHARING[name]
    reference = save(config, "text-generation", tmp_path / "model")
    made = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", compute="fp16", **BUILD)
    found = _attention(made)
    assert [len(node.output) for node in found[:caches]] == [3] * caches
    assert [len(node.output) for node in found[caches:]] == [1] * (len(found) - caches)
    assert all("present" in node.input[3] for node in found[caches:])
    assert made.manifest.cache is not None
    assert made.manifest.cache["shared"]
    with lc.load(made.path, target="ort-cuda") as model, torch.no_grad():
        cache = model.new_cache(2, 32)
        rows, scores = [list(row) for row in ROWS], cache.start(ROWS)
        for token in range(3, 3 + STEPS):
            for row, ours in zip(rows, scores, strict=True):
                expected = reference(torch.tensor([row])).logits[0, -1].numpy()
                assert relative_error(ours, expected) < FP16
                row.append(token)
            scores = cache.step([token] * 2, [True] * 2)


def test_no_keys_are_bfloat16_beside_queries_that_are(tmp_path: Path) -> None:
    save(SHARING["gemma4-e2b"][0], "text-generation", tmp_path / "model")
    made = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", compute="bf16", **BUILD)
    graph = onnx.load(made.path / "engines/ort-cuda/model.onnx", load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    none = {node.input[1] for node in _attention(made) if len(node.output) == 1}
    assert none
    for expand in (makers[name] for name in none):
        (zero,) = makers[expand.input[0]].attribute
        assert (expand.op_type, zero.t.data_type) == ("Expand", onnx.TensorProto.BFLOAT16)
