"""Which engine of an artifact a server gets, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.errors import ArtifactError, UsageError
from lepton_compile.serving.engine import open_engine
from tests.serving.artifacts import changed, engine_of


def test_the_first_engine_that_the_server_loads(trt_encoder: Artifact) -> None:
    assert open_engine(trt_encoder.path, ("trt", "ort-cpu"), "S").target == "ort-cpu"
    assert open_engine(trt_encoder.path, ("trt",), "S").target == "trt"
    assert open_engine(trt_encoder.path, ("trt", "ort-cpu"), "S", "trt").target == "trt"


def test_its_files_by_their_names_in_its_folder(trt_encoder: Artifact) -> None:
    engine = engine_of(trt_encoder, "trt")
    assert engine.files() == {"model.plan": trt_encoder.path / "engines/trt/model.plan"}
    assert engine.model_file.is_file()


def test_an_engine_of_another_interface(trt_encoder: Artifact) -> None:
    engine = engine_of(trt_encoder, "trt")
    assert [v["name"] for v in engine.inputs][:2] == ["input_ids", "attention_mask"]
    value = {"name": "x", "dtype": "int64", "shape": ["batch"]}
    other = changed(engine, {"io": {"inputs": [value], "outputs": [{**value, "name": "y"}]}})
    assert [v["name"] for v in other.inputs] == ["x"]
    assert [v["name"] for v in other.outputs] == ["y"]


def test_no_engine_says_what_there_is_and_how_to_build_one(encoder: Artifact) -> None:
    with pytest.raises(ArtifactError) as caught:
        open_engine(encoder.path, ("trt",), "Server")
    assert caught.value.found == "ort-cpu"
    assert "--target trt" in str(caught.value.hint)


@pytest.mark.parametrize("target", [None, "trt-rtx"])
def test_a_plan_for_rtx_says_why_not(rtx_encoder: Artifact, target: str | None) -> None:
    with pytest.raises((ArtifactError, UsageError)) as caught:
        open_engine(rtx_encoder.path, ("trt",), "Server", target)
    assert "TensorRT-RTX runtime alone" in str(caught.value.found)


def test_a_damaged_artifact_is_refused(encoder: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder.path, copy)
    with (copy / "engines/ort-cpu/model.onnx").open("r+b") as file:
        file.write(b"X")
    with pytest.raises(ArtifactError, match="changed or damaged"):
        open_engine(copy, ("ort-cpu",), "Server")
