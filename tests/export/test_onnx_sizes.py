"""Open sizes of an ONNX file without a name: one that two of them shared held callers to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import lepton_compile as lc
from lepton_compile.engines.interface import signature
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve


def _value(name: str, *sizes: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


def _file(folder: Path, x: list[Any], z: list[Any], inner: list[Any]) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Add", ["h", "z"], ["y"])]
    ends = [_value("x", *x), _value("z", *z)], [_value("y", None, None, 4)]
    graph = helper.make_graph(nodes, "g", *ends, value_info=[_value("h", *inner)])
    path = folder / "m.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("nameless", [None, "", "?", "-1", "None"])
def test_each_has_a_name_of_its_own(nameless: str | None, tmp_path: Path) -> None:
    path = _file(tmp_path, [nameless, nameless, 4], ["z.1", nameless, 4], [nameless, "kept", 4])
    graph = import_onnx(resolve(str(path), tmp_path), None).model.graph
    assert [each["shape"] for each in signature([*graph.inputs, *graph.outputs])] == [
        ["x.0", "x.1", 4],
        ["z.1", "z.1.1", 4],
        ["y.0", "y.1", 4],
    ]
    (inner,) = (node.outputs[0] for node in graph if node.op_type == "Relu")
    assert inner.shape == ir.Shape([None, "kept", 4])


@pytest.mark.parametrize("nameless", [None, "?"])
def test_they_may_differ(nameless: str | None, tmp_path: Path) -> None:
    path = _file(tmp_path, [nameless, nameless, 4], [nameless, nameless, 4], [nameless] * 3)
    made = lc.build({"model": str(path)}, output=tmp_path / "out")
    feeds = {"x": np.ones((3, 5, 4), np.float32), "z": np.ones((1, 5, 4), np.float32)}
    with lc.load(made.path) as model:
        assert model.run(feeds)["y"].shape == (3, 5, 4)


def test_an_interface_without_names_is_told_apart() -> None:
    """As of what passes made."""
    value = ir.Value(name="y", shape=ir.Shape([None, "n", None, 4]))
    assert signature([value])[0]["shape"] == ["y.0", "n", "y.2", 4]
