"""What an artifact carries of the plugin, used as a loader uses it: nothing of ours importable."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from lepton_plugins.attention.emit import RUNTIME_FILE, emit, runtime_source
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError
from tests.plugins.attention.test_plugin_v3 import run
from tests.plugins.attention.trt_graphs import HEADS, graph

VARIANT = Variant("bfloat16", 4, 1, 64, window=512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("triton")
    made = tmp_path_factory.mktemp("artifact") / "plugin"
    made.mkdir()
    files = emit(made, [VARIANT], [90], cache=tmp_path_factory.mktemp("cache"))
    assert files == sorted(path for path in made.rglob("*") if path.is_file())
    return made


def test_every_kernel_is_there_and_vouched_for(folder: Path) -> None:
    index = json.loads((folder / "kernels" / "kernels.json").read_text("utf-8"))
    (entry,) = index["sets"].values()
    assert [each["kernel"] for each in entry["kernels"]] == [
        *("append", "prefill", "decode", "combine")
    ]
    for kernel in entry["kernels"]:
        for kind in ("cubin", "ptx"):
            data = (folder / "kernels" / kernel[kind]["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == kernel[kind]["sha256"]
            assert str(Path(__file__).parents[3]).encode() not in data, "no path of this machine"


def test_the_source_needs_numpy_alone() -> None:
    """At import; cuda-bindings when a kernel is loaded."""
    tree = ast.parse(runtime_source())
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    assert found - set(sys.stdlib_module_names) == {"numpy"}
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and _ours(n)]


def _ours(node: ast.ImportFrom) -> bool:
    return str(node.module).startswith("lepton")


def test_the_plan_is_built_with_the_plugin_that_is_shipped(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    source = {"source": str(folder / RUNTIME_FILE), "folder": [str(folder)]}
    seen = run(tmp_path, graph(TensorProto.BFLOAT16, window=512), **source)
    assert seen["built"] > 0, seen["errors"]
    assert seen["failures"] == []
    assert seen["variants"] == [VARIANT.as_dict()], "the kernels of the folder are those asked for"
    assert seen["modules"] == [], "neither triton nor CUDA"


@pytest.mark.parametrize(
    ("batch", "sequence", "entries"),
    [(3, 1, ("decode", "combine")), (1, 40, ("append", "prefill"))],
)
def test_an_opened_plan_launches_them(
    tmp_path: Path, folder: Path, batch: int, sequence: int, entries: tuple[str, str]
) -> None:
    """Through TensorRT-RTX's classes, on a driver that notes what it is asked to do."""
    pytest.importorskip("tensorrt_rtx")
    job: dict[str, Any] = {
        "source": str(folder / RUNTIME_FILE),
        "folder": [str(folder)],
        "reopen": HEADS | {"window": 512},
        "run": [batch, sequence],
    }
    seen = run(tmp_path, graph(TensorProto.BFLOAT16, window=512), **job)
    loads, calls = seen["launches"][:4], seen["launches"][4:]
    assert loads == [["load", True]] * 4, "machine code, all of it"
    assert calls[0] == "attached", "before the first run, which may be captured in a graph"
    assert [call[0] for call in calls[1:3]] == [f"lepton_attention_{name}" for name in entries]
    for _, blocks, threads, _, stream, arguments, sizes in calls[1:3]:
        assert blocks[2] == batch
        assert threads % 32 == 0
        assert stream == 42
        assert len(arguments) == len(sizes)
    assert "present_key is not at the address of key_cache" in calls[3]
    assert calls[3] in seen["failures"], "not said by TensorRT, so kept"


def test_fp8_caches_are_refused_where_no_instruction_converts_them(tmp_path: Path) -> None:
    variant = Variant("bfloat16", 4, 1, 64, cache_dtype="float8_e4m3fn")
    with pytest.raises(PluginError, match="cannot convert fp8"):
        emit(tmp_path / "plugin", [variant], [80], cache=tmp_path / "cache")
    assert not (tmp_path / "plugin").exists()
