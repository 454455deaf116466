"""The ``export`` commands: what they write, say and refuse."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.cli import main
from tests.runtime import tiny
from tests.serving.artifacts import encoder_with

Capture = pytest.CaptureFixture[str]


def answer(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    assert main(["export", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_decoder_for_genai(decoder: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    found = answer(capsys, "genai", str(decoder), "-o", str(output), "--last-logits")
    assert found["output"] == str(output)
    assert {"genai_config.json", "model.onnx", "weights.bin"} <= found["files"].keys()
    assert found["files"]["model.onnx"] == (output / "model.onnx").stat().st_size


def test_an_encoder_for_triton(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    options = ["--name", "words", "--version", "2", "--instances", "3", "--copy"]
    found = answer(capsys, "triton", str(encoder), "-o", str(tmp_path / "repo"), *options)
    assert found["output"] == str(tmp_path / "repo" / "words")
    assert {"config.pbtxt", "2/model.onnx", "2/weights.bin"} <= found["files"].keys()
    assert "count: 3" in (tmp_path / "repo/words/config.pbtxt").read_text()


def test_a_plan_for_onnxruntime(tmp_path: Path, capsys: Capture) -> None:
    encoder_with(tmp_path / "artifact", "trt-rtx")
    arguments = ["epcontext", str(tmp_path / "artifact"), "-o", str(tmp_path / "out")]
    assert main(["export", *arguments]) == 0
    said = capsys.readouterr().out
    assert "never executed" in said
    assert "model.plan" in said


@pytest.mark.parametrize("folder", ["re po", "it's"])
def test_what_is_said_can_be_pasted(tmp_path: Path, capsys: Capture, folder: str) -> None:
    output = tmp_path / folder
    tiny.decoder(tmp_path / "writer")
    options = [str(tmp_path / "writer"), "-o"]
    assert main(["export", "genai", *options, str(output / "genai")]) == 0
    python, flag, code = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert (python, flag) == ("python", "-c")
    compile(code, "said", "exec")
    assert json.dumps(str(output / "genai")) in code
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    assert main(["export", "triton", *options, str(output)]) == 0
    said = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert said == ["tritonserver", f"--model-repository={output}"]


def test_a_folder_whose_name_triton_cannot_have(tmp_path: Path, capsys: Capture) -> None:
    """Nobody gave a name, so that the one that is wrong is the folder's."""
    tiny.decoder(tmp_path / "größe 1")
    found = answer(capsys, "triton", str(tmp_path / "größe 1"), "-o", str(tmp_path), code=2)
    assert found["found"] == "größe 1"
    assert "folder" in found["where"]
    assert "--name" in found["hint"]


def test_what_exists_is_refused(decoder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").mkdir()
    found = answer(capsys, "genai", str(decoder), "-o", str(tmp_path / "out"), code=1)
    assert found["found"] == str(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_no_artifact_is_refused(tmp_path: Path, capsys: Capture) -> None:
    found = answer(capsys, "genai", str(tmp_path), "-o", str(tmp_path / "out"), code=1)
    assert found["message"] == "this folder is no artifact"


@pytest.mark.parametrize("name", ["triton", "genai", "epcontext"])
def test_each_format_has_help_and_json(name: str, capsys: Capture) -> None:
    assert main(["export", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "--copy" in text
    assert main(["export", name]) == 2


def test_summaries_of_formats_are_whole_at_eighty_columns(capsys: Capture) -> None:
    assert main(["export", "--help"]) == 0
    _, summaries = capsys.readouterr().out.split("Commands:")
    assert "Triton Inference Server." in summaries
    assert "..." not in summaries


def test_an_unknown_format_is_wrong_usage(capsys: Capture) -> None:
    assert main(["export", "torchserve", "x"]) == 2
    assert "torchserve" in capsys.readouterr().err
