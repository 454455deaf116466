"""Engines of graphs that came as ONNX are measured, whatever they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compile.artifact import Artifact, ArtifactWriter, Manifest
from lepton_compile.numerics.bench import bench
from lepton_compile.runtime import emit, load

ENGINE: dict[str, Any] = {
    "target": "ort-cpu",
    "model": "model.onnx",
    "files": ["model.onnx"],
    "requires": {"onnxruntime": ">=1.30"},
    "precision": "fp32",
    "executed": True,
}
KEY = ["batch", 2, "past_sequence_length", 4]
DECODER: dict[str, tuple[str, list[Any]]] = {
    "input_ids": ("int64", ["batch", "sequence"]),
    "attention_mask": ("int64", ["batch", "total_sequence_length"]),
    "past_key_values.0.key": ("float32", KEY),
    "scale": ("float32", [1, 2]),
}


def artifact(folder: Path, task: str, inputs: dict[str, Any], nodes: list[Any]) -> Artifact:
    """As a build of an ONNX file leaves it: nothing is known of a cache or a vocabulary."""
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    values = [helper.make_tensor_value_info(n, types[t], s) for n, (t, s) in inputs.items()]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    constants = [
        onnx.numpy_helper.from_array(np.array(axes, np.int64), f"axes{len(axes)}")
        for axes in ([1], [1, 3])
    ]
    graph = helper.make_graph(nodes, "tiny", values, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    described = [{"name": n, "dtype": t, "shape": s} for n, (t, s) in inputs.items()]
    manifest = Manifest(
        task=task,
        model={"source": "tiny.onnx", "architecture": "tiny", "model_type": None, "parameters": 0},
        inputs=tuple({**each, "optional": False} for each in described),
        outputs=({"name": "logits", "dtype": "float32", "shape": ["batch", 2, "t", 4]},),
        engines=(ENGINE,),
        ranges={"batch": [1, 4], "sequence": [1, 32]},
    )
    with ArtifactWriter(folder) as writer:
        (writer.folder / "model.onnx").write_bytes(model.SerializeToString())
        emit(writer.folder, manifest.as_dict())
        writer.seal(manifest)
        return writer.publish()


def masked_keys() -> list[Any]:
    """Keys of the past and of the ids, times a mask that has to be as long as both together."""
    node = helper.make_node
    return [
        node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["ids", "axes2"], ["row"]),
        node("Concat", ["row", "row"], ["heads"], axis=1),
        node("Concat", ["heads"] * 4, ["keys"], axis=3),
        node("Concat", ["past_key_values.0.key", "keys"], ["present"], axis=2),
        node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["seen", "axes2"], ["mask"]),
        node("Mul", ["present", "mask"], ["logits"]),
    ]


@pytest.mark.parametrize(
    ("task", "cases"),
    [("other", ["1x16", "1x32", "4x32"]), ("text-generation", ["prefill 25"])],
)
def test_a_decoder_starts_with_an_empty_past(tmp_path: Path, task: str, cases: list[str]) -> None:
    made = artifact(tmp_path / "decoder", task, DECODER, masked_keys())
    with load(made.path, threads=1) as model:
        report = bench(model, artifact=made.path, rounds=1)
    assert [case.name for case in report.cases] == cases
    assert report.start is not None


def test_a_graph_that_reads_no_text(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "y"], ["logits"])]
    inputs = {"x": ("float32", ["batch", 8]), "y": ("float32", ["batch", 8])}
    made = artifact(tmp_path / "sum", "other", inputs, nodes)
    with load(made.path, threads=1) as model:
        report = bench(model, artifact=made.path, rounds=1)
    assert [case.engine.runs for case in report.cases] == [1, 1, 1]
