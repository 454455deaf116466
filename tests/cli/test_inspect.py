"""``inspect`` on ONNX files made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.cli import main
from lepton_compile.cli.onnxfile.summary import Value, summarize
from lepton_compile.cli.onnxfile.view import fold_numbered
from tests.cli.onnx_files import (
    external_model,
    large_model,
    layered_model,
    quantized_model,
    tiled_model,
)


def inspected(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_quantized_weights_by_bits_and_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = inspected(capsys, quantized_model(tmp_path))
    assert found["quantized"] == [
        {
            "op": "MatMulNBits",
            "bits": 4,
            "block": "32",
            "count": 1,
            "bytes": 1024 + 256 + 64,
            "zeros": True,
        },
        {
            "op": "DequantizeLinear",
            "bits": 8,
            "block": "row",
            "count": 1,
            "bytes": 1024 + 64,
            "zeros": False,
        },
    ]
    assert found["ops"]["com.microsoft"] == {"MatMulNBits": 1}
    assert found["ops"]["ai.onnx"]["MatMul"] == 1
    assert found["weights"]["float"] == {"count": 3, "bytes": 256 + 64 + 64}
    assert main(["inspect", str(tmp_path / "quantized.onnx")]) == 0
    assert "zero points" in capsys.readouterr().out
    assert found["layers"] == {"by name": 2}
    assert found["inputs"] == [{"name": "x", "dtype": "float", "shape": ["batch", 32]}]


def test_weights_of_our_own_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, tiled_model(tmp_path))["quantized"]
    keys = ("op", "bits", "block", "count", "bytes", "zeros")
    assert [tuple(each[key] for key in keys) for each in found] == [
        ("QuantizedExperts", 4, "32", 1, 8 * 576, False),
        ("QuantizedEmbedding, QuantizedLinear", 4, "32", 1, 4 * 640, True),  # read twice, kept once
        ("QuantizedExperts", 4, "32", 1, 4 * 640, True),
    ]


def test_layers_are_counted_as_they_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, layered_model(tmp_path, layers=3))
    assert found["layers"] == {"TinyLayer_0": 3}
    assert found["ops"] == {"ai.onnx": {"DequantizeLinear": 3, "MatMul": 3}}
    (weights,) = found["quantized"]
    assert (weights["bits"], weights["block"], weights["count"]) == (4, "32", 3)
    assert weights["bytes"] == 3 * (512 + 128)


def test_external_data_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, external_model(tmp_path))
    assert found["files"] == [{"name": "weights.bin", "needed": 1 << 40, "found": None}]
    assert found["weights"]["float"]["bytes"] == 1 << 40
    assert found["inputs"][0]["shape"] is None


def test_a_file_outside_the_folder_is_not_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret.bin").write_bytes(b"1234")
    inner = tmp_path / "inner"
    inner.mkdir()
    found = inspected(capsys, external_model(inner, size=4, location="../secret.bin"))
    assert found["files"][0]["found"] is None


def test_weights_that_are_left_in_the_file_are_told_as_those_that_are_read(tmp_path: Path) -> None:
    left = summarize(large_model(tmp_path / "m.onnx"))
    read = summarize(large_model(tmp_path / "m.pb"))  # a name that is read whole
    assert replace(left, path=read.path) == read
    assert left.weights == {"float16": (1, 1 << 17), "int8": (1, 1 << 16), "float": (1, 4096)}
    assert [(each.bits, each.bytes) for each in left.quantized] == [(8, (1 << 16) + 4096)]
    assert left.files == ()


def test_a_file_that_says_it_is_longer_than_it_is(tmp_path: Path) -> None:
    path = external_model(tmp_path, location="external.onnx")
    (file,) = summarize(path).files
    assert (file.name, file.needed, file.found) == (path.name, 1 << 40, path.stat().st_size)


PEAK = """
import re, sys
from pathlib import Path
from lepton_compile.cli.onnxfile.summary import summarize

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

small, large = map(Path, sys.argv[1:])
summarize(small)  # with the libraries that it takes
before = peak()
summarize(large)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is told by /proc")
def test_it_takes_a_small_part_of_the_file(tmp_path: Path) -> None:
    small = large_model(tmp_path / "small.onnx")
    large = large_model(tmp_path / "large.onnx", rows=1 << 18)
    command = [sys.executable, "-c", PEAK, small, large]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert int(done.stdout) < (large.stat().st_size >> 10) // 4


@pytest.mark.parametrize(
    ("make", "op"),
    [(quantized_model, "MatMulNBits"), (external_model, "Add"), (layered_model, "MatMul")],
)
def test_tables_fit_eighty_columns(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    op: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", make(Path()).name]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "Inputs" in text
    assert op in text


def test_numbered_inputs_become_one_line() -> None:
    values = [
        Value(f"past.{n}.{kind}", "float", (1,)) for n in range(3) for kind in ("key", "value")
    ]
    labels = [label for label, _ in fold_numbered([Value("ids", "int64", (1,)), *values])]
    assert labels == ["ids", "past.{0..2}.key", "past.{0..2}.value"]


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x0a"])
def test_what_is_not_onnx_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert main(["inspect", str(path)]) == 1
    assert "not an ONNX model" in capsys.readouterr().err


def test_a_folder_without_a_manifest_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert "not an artifact" in capsys.readouterr().err


def test_nothing_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "no")]) == 2
    assert "found:" in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert main(["inspect", str(tmp_path / "pipe.onnx")]) == 2
    assert "neither a folder nor a file" in capsys.readouterr().err
    assert main(["plan", "--model", str(tmp_path / "pipe.onnx")]) == 1
    assert "neither a folder nor a file" in capsys.readouterr().err
