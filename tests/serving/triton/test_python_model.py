"""The Python model of a decoder, driven by a double of Triton's backend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.runtime import load
from lepton_compile.serving import export_triton
from tests.runtime import tiny
from tests.serving.triton.backend import Server

pytest.importorskip("tritonclient.grpc.model_config_pb2")
pytest.importorskip("onnxruntime")

PROMPT = "<bos> w5 w9 w13"


@pytest.fixture(scope="module")
def server(decoder: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(export_triton(decoder.path, tmp_path_factory.mktemp("repo"), name="writer"))


@pytest.fixture(scope="module")
def expected(decoder: Artifact) -> str:
    with load(decoder.path, threads=1) as model:
        text = model.generate(PROMPT, max_new_tokens=12).text
    assert isinstance(text, str)
    assert len(text.split()) == 12
    return text


def test_one_response_without_a_stream(server: Server, expected: str) -> None:
    answer = server.infer(text_input=PROMPT, max_tokens=12)
    assert answer.responses == [{"text_output": [expected]}]
    assert answer.error is None


def test_a_stream_of_the_same_text(server: Server, expected: str) -> None:
    answer = server.infer(text_input=PROMPT, max_tokens=12, stream=True)
    assert len(answer.responses) > 3
    assert "".join(response["text_output"][0] for response in answer.responses) == expected


def test_requests_are_answered_apart(server: Server, expected: str) -> None:
    wrong = {"text_input": ""}
    right = {"text_input": PROMPT, "max_tokens": 12}
    first, second, third = server.infer_all([right, wrong, right])
    assert first.responses == third.responses == [{"text_output": [expected]}]
    assert second.error is not None
    assert second.error.code == "INVALID_ARG"
    assert second.responses == []


def test_settings_reach_the_loader(server: Server, expected: str) -> None:
    drawn = {"text_input": PROMPT, "max_tokens": 12, "temperature": 5.0}
    one = server.infer(**drawn, seed=1)
    assert one.responses == server.infer(**drawn, seed=1).responses
    assert one.responses != server.infer(**drawn, seed=2).responses
    words = expected.split()
    stopped = server.infer(text_input=PROMPT, max_tokens=12, stop=[words[2], words[5]])
    assert stopped.responses[0]["text_output"][0].split() == words[: words.index(words[2])]


def test_a_setting_out_of_range_is_the_callers_error(server: Server) -> None:
    answer = server.infer(text_input=PROMPT, top_p=7.0)
    assert answer.error is not None
    assert answer.error.code == "INVALID_ARG"
    assert "out of its range" in str(answer.error)


@pytest.mark.parametrize("after", [0, 2])
def test_a_client_that_leaves_ends_its_request(server: Server, after: int) -> None:
    answer = server.infer(cancel_after=after, text_input=PROMPT, max_tokens=12, stream=True)
    assert len(answer.responses) == after
    assert answer.error is not None
    assert answer.error.code == "CANCELLED"
    assert server.infer(text_input=PROMPT, max_tokens=2).error is None


def test_the_warm_up_request_is_answered(server: Server) -> None:
    (answer,) = server.warm_up()
    assert answer.error is None
    assert len(answer.responses) == 1


def test_ids_where_there_is_no_tokenizer(tmp_path: Path) -> None:
    artifact = tiny.decoder(tmp_path / "artifact", tokenizer=None)
    server = Server(export_triton(artifact.path, tmp_path / "repo", name="ids"))
    with load(artifact.path, threads=1) as model:
        tokens = model.generate([2, 5, 9], max_new_tokens=8).tokens
    whole = server.infer(input_ids=[2, 5, 9], max_tokens=8)
    assert whole.responses == [{"output_ids": tokens}]
    stream = server.infer(input_ids=[2, 5, 9], max_tokens=8, stream=True)
    assert [one["output_ids"] for one in stream.responses] == [[token] for token in tokens]
    assert server.warm_up()[0].error is None
    server.model.finalize()


@pytest.mark.parametrize("told", ["2", "0", None])
def test_threads_are_those_of_the_configuration(
    told: str | None, decoder: Artifact, tmp_path: Path
) -> None:
    folder = export_triton(decoder.path, tmp_path / "repo", name="writer")
    told_to(folder, told)
    server = Server(folder)
    assert server.model.model.threads == (int(told or 0) or server.model.loader.cores())
    assert server.infer(text_input=PROMPT, max_tokens=2).error is None
    server.model.finalize()


def test_threads_that_are_none_are_refused(decoder: Artifact, tmp_path: Path) -> None:
    folder = export_triton(decoder.path, tmp_path / "repo", name="writer")
    told_to(folder, "two")
    with pytest.raises(Exception, match="threads are 1 to 1024, not 'two'"):
        Server(folder)


def told_to(folder: Path, threads: str | None) -> None:
    """Give the configuration another number of threads, or none as older exports have."""
    file, entry = folder / "config.pbtxt", 'key: "threads"\n  value {\n    string_value: "0"\n'
    text = file.read_text()
    assert text.count(entry) == 1
    named = entry.replace("threads", "threads" if threads else "other")
    file.write_text(text.replace(entry, named.replace('"0"', f'"{threads or 0}"')))


def test_a_damaged_artifact_is_not_served(decoder: Artifact, tmp_path: Path) -> None:
    folder = export_triton(decoder.path, tmp_path / "repo", name="writer", copy=True)
    with (folder / "1/artifact/engines/ort-cpu/model.onnx").open("r+b") as file:
        file.write(b"X")
    with pytest.raises(Exception, match="damaged"):
        Server(folder)


def test_the_repository_stands_without_the_artifact(decoder: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(decoder.path, copy)
    folder = export_triton(copy, tmp_path / "repo", name="alone")
    shutil.rmtree(copy)
    assert Server(folder).infer(text_input=PROMPT, max_tokens=2).error is None
