"""A Scan behind layers of our own kernels runs, or is no engine: opening one does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_compile as lc
from lepton_compile.errors import EngineError
from tests.plugins.cpu_library import needs_library

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": (RNG.standard_normal((64, 64)) / 8).astype(np.float32),
    "first": np.zeros(64, np.float32),
}


def _file(path: Path, before: str) -> Path:
    """Sums along the rows of a linear layer, in a body that says no sizes."""
    bare = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "abcd"]
    sums = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
    body = helper.make_graph(sums, "body", bare[:2], bare[2:])
    domain = "com.microsoft" if before == "FastGelu" else ""
    nodes = [
        helper.make_node(before, ["x"], ["h"], domain=domain),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Scan", ["first", "m"], ["last", "y"], body=body, num_scan_inputs=1),
    ]
    ends = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64])] for name in "xy")
    weights = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def _error(path: Path, **recipe: Any) -> float:
    feeds = {"x": RNG.standard_normal((3, 64)).astype(np.float32)}
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(["y"], feeds)
    out = path.parent / "out"
    lc.build({"model": str(path), "quantize": "int8", "check": False, **recipe}, output=out)
    with lc.load(out) as model:
        found = model.run(feeds)["y"]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@needs_library
def test_sizes_that_can_be_told_are_written(tmp_path: Path) -> None:
    assert _error(_file(tmp_path / "m.onnx", "Tanh")) < 0.05


@needs_library
def test_sizes_that_cannot_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "m.onnx", "FastGelu")  # of whose sizes onnx knows nothing
    with pytest.raises(EngineError, match="the sizes of what a Scan reads") as caught:
        _error(path)
    assert "kernels: builtin" in (caught.value.hint or "")
    assert _error(path, kernels="builtin") < 0.05
