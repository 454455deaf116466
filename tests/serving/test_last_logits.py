"""The variant of a decoder that computes the logits of the last position only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.errors import ArtifactError
from lepton_compile.runtime import load
from lepton_compile.serving.last_logits import last_logits
from tests.serving.artifacts import engine_of

IDS = np.array([[5, 9, 13, 2, 40]], np.int64)


def test_its_logits_are_the_last_row_of_the_original(decoder: Artifact, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(last_logits(engine_of(decoder).model_file))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert "logits_to_keep" not in [value.name for value in session.get_inputs()]
    with load(decoder.path, threads=1) as model:
        whole = model.logits(IDS)
    layers = range(len((decoder.manifest.cache or {})["layers"]))
    empty = np.zeros((1, 2, 0, 16), np.float32)
    past = {f"past_key_values.{n}.{kind}": empty for n in layers for kind in ("key", "value")}
    feeds = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), **past}
    (found,) = session.run(["logits"], feeds)
    np.testing.assert_allclose(found, whole[:, -1:], atol=1e-5)


def test_only_the_constant_and_the_shape_change(decoder: Artifact) -> None:
    path = engine_of(decoder).model_file
    before, after = onnx.load(path), onnx.load_from_string(last_logits(path))
    assert list(before.graph.node) == list(after.graph.node)
    differing = [
        old.name
        for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if old != new
    ]
    assert differing == ["logits_to_keep"]
    kept = after.graph.output[0].type.tensor_type.shape.dim[1]
    assert kept.dim_value == 1


def test_a_graph_without_the_input_is_refused(encoder: Artifact) -> None:
    with pytest.raises(ArtifactError, match="last logits only"):
        last_logits(engine_of(encoder).model_file)
