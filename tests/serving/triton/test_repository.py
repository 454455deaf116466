"""A Triton model repository on the disk, its configuration read back through Triton's protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.engines.interface import signature
from lepton_compile.errors import ArtifactError, LeptonError, UsageError
from lepton_compile.serving import export_triton
from lepton_compile.serving.triton import protobuf
from tests.numerics.test_bench_feeds import DECODER, artifact, masked_keys
from tests.runtime import tiny
from tests.serving.artifacts import PLAN, encoder_with, resealed

pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def read(folder: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_an_encoder_for_onnxruntime(encoder: Artifact, tmp_path: Path) -> None:
    folder = export_triton(encoder.path, tmp_path / "repo", name="words", version=3)
    assert files(folder) == {
        *("config.pbtxt", "3/model.onnx"),
        *(f"warmup/1x16-{name}" for name in ("input_ids", "attention_mask")),
    }
    assert (folder / "3/model.onnx").samefile(encoder.path / "engines/ort-cpu/model.onnx")
    config = read(folder)
    assert (config.name, config.backend) == ("words", "onnxruntime")
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 64


def test_several_models_in_one_repository(encoder: Artifact, tmp_path: Path) -> None:
    export_triton(encoder.path, tmp_path, name="one")
    export_triton(encoder.path, tmp_path, name="two")
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two"}
    with pytest.raises(ArtifactError, match="exists"):
        export_triton(encoder.path, tmp_path, name="one")
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two"}


def warmed_up(folder: Path) -> list[list[np.ndarray]]:
    """What onnxruntime gives for each request that Triton makes before a model is ready.

    Triton puts a batch before the dimensions where the model takes any, and holds every request to
    the shapes of the configuration.
    """
    config = read(folder)
    types = {pb.TYPE_INT64: np.int64, pb.TYPE_FP32: np.float32}
    session = ort.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    found = []
    for sample in config.model_warmup:
        feeds = {}
        for described in config.input:
            value = sample.inputs[described.name]
            shape, dtype = tuple(value.dims), types[value.data_type]
            assert len(shape) == len(described.dims)
            pairs = zip(described.dims, shape, strict=True)
            assert all(size > 0 and said in (-1, size) for said, size in pairs)
            data = np.zeros(shape, dtype)
            if value.input_data_file:
                raw = (folder / "warmup" / value.input_data_file).read_bytes()
                data = np.frombuffer(raw, dtype).reshape(shape)
            batched = config.max_batch_size > 0
            feeds[described.name] = np.repeat(data[None], sample.batch_size, 0) if batched else data
        found.append(session.run(None, feeds))
    return found


def test_the_warm_up_requests_run(encoder: Artifact, tmp_path: Path) -> None:
    folder = export_triton(encoder.path, tmp_path, name="words")
    (answers,) = warmed_up(folder)
    assert all(np.isfinite(array).all() for array in answers)


SCALED = {**DECODER, "scale": ("float32", [1, 2])}
UNSCALED = {name: value for name, value in DECODER.items() if name != "scale"}


@pytest.mark.parametrize("task", ["other", "text-generation"])
@pytest.mark.parametrize("inputs", [SCALED, UNSCALED], ids=["whole shapes", "batches"])
def test_an_imported_decoder_is_warmed_up_with_a_past(
    tmp_path: Path, task: str, inputs: dict[str, Any]
) -> None:
    """Its mask is longer than its ids; nobody but the caller can feed its past."""
    made = artifact(tmp_path / "made", task, inputs, masked_keys())
    folder = export_triton(made.path, tmp_path, name="decoder")
    assert read(folder).backend == "onnxruntime"
    assert (read(folder).max_batch_size > 0) == ("scale" not in inputs)
    shapes = [answers[0].shape for answers in warmed_up(folder)]
    assert shapes == [(1, 2, 32, 4)]


def test_labels_of_any_text_and_number_are_a_line_each(
    classifier: Artifact, tmp_path: Path
) -> None:
    labels = {"0": "so\nso", "2": "good", "7": "bad"}
    made = resealed(classifier, tmp_path / "made", labels=labels)
    folder = export_triton(made.path, tmp_path, name="moods")
    assert (folder / "labels.txt").read_text() == "so so\n1\ngood\n"


def test_files_beside_the_folder_of_an_engine_are_told(encoder: Artifact, tmp_path: Path) -> None:
    entry = encoder.manifest.engines[0]
    engine = {**entry, "files": [*entry["files"], "loader.py"]}
    made = resealed(encoder, tmp_path / "made", engines=(engine,))
    with pytest.raises(ArtifactError, match="beside the folder") as caught:
        export_triton(made.path, tmp_path / "repo", name="words")
    assert caught.value.found == "loader.py"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_a_plan_under_the_name_triton_looks_for(trt_encoder: Artifact, tmp_path: Path) -> None:
    folder = export_triton(trt_encoder.path, tmp_path, name="plan", target="trt")
    config = read(folder)
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert dict(config.cc_model_filenames) == {"8.9": "model.plan", "9.0": "model.plan"}
    assert (folder / "1" / config.default_model_filename).read_bytes() == PLAN
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert list(config.dynamic_batching.preferred_batch_size) == [8]


def test_a_plan_for_rtx_is_refused_with_the_reason(rtx_encoder: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export_triton(rtx_encoder.path, tmp_path, target="trt-rtx")
    assert "TensorRT-RTX runtime alone" in str(caught.value.found)
    served = export_triton(rtx_encoder.path, tmp_path)
    assert read(served).backend == "onnxruntime"


@pytest.mark.parametrize(("self_contained", "refused"), [(False, True), (True, False)])
def test_a_plan_with_a_plugin_in_python_is_refused(
    tmp_path: Path, self_contained: bool, refused: bool
) -> None:
    plugin = {"name": "CachedAttention", "folder": "plugin", "architectures": ["8.9"]}
    plugin |= {"self_contained": self_contained}
    artifact = encoder_with(tmp_path / "artifact", "trt", plugin=plugin)
    if not refused:
        assert export_triton(artifact.path, tmp_path / "repo", target="trt").is_dir()
        return
    with pytest.raises(ArtifactError, match="written in Python"):
        export_triton(artifact.path, tmp_path / "repo", target="trt")


def test_labels_go_with_a_classifier(classifier: Artifact, tmp_path: Path) -> None:
    folder = export_triton(classifier.path, tmp_path, name="moods")
    (output,) = read(folder).output
    assert (folder / output.label_filename).read_text() == "bad\nso so\ngood\n"


def test_a_decoder_takes_its_whole_artifact_along(decoder: Artifact, tmp_path: Path) -> None:
    folder = export_triton(decoder.path, tmp_path, name="writer")
    inside = {name.removeprefix("1/artifact/") for name in files(folder)}
    assert {"manifest.json", *decoder.manifest.files} <= inside
    config = read(folder)
    assert (config.backend, config.max_batch_size) == ("python", 0)
    assert config.parameters["target"].string_value == "ort-cpu"


def test_a_decoder_of_a_plan_alone(tmp_path: Path) -> None:
    """What a plan takes is listed as it is built: without what is optional in onnxruntime."""
    graph = ir.serde.deserialize_model(tiny.decoder_model(tiny.weights())).graph
    io = {"inputs": signature(graph.inputs), "outputs": signature(graph.outputs)}
    made = tiny.decoder(tmp_path / "made", plans={"trt": (PLAN, {"io": io})}, cpu=False)
    config = read(export_triton(made.path, tmp_path, name="writer"))
    assert (config.backend, config.parameters["target"].string_value) == ("python", "trt")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "white space"])
def test_a_name_that_is_no_folder(encoder: Artifact, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name") as caught:
        export_triton(encoder.path, tmp_path / "repo", name=name)
    assert caught.value.found == (name or "''")
    assert list(tmp_path.iterdir()) == []


def test_without_tritonclient_it_says_what_to_install(
    encoder: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tritonclient.grpc", None)
    with pytest.raises(LeptonError) as caught:
        export_triton(encoder.path, tmp_path / "repo")
    assert caught.value.hint == "pip install 'lepton-compile[serve]'"
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_survives_its_text() -> None:
    config = pb.ModelConfig(name="x", max_batch_size=4)
    assert 'name: "x"' in protobuf.text_of(config)
