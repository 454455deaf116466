"""Ops whose meaning a newer opset changed: in an old file they still compute what they did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve

from .harness import session_of

SHAPE = [2, 3, 6, 5]
TOLERANCE = 1e-5  # of numbers about 1: sums of a few, in fp32


def _file(
    path: Path, nodes: Sequence[onnx.NodeProto], opset: int, *weights: onnx.TensorProto
) -> Path:
    """A model of one input ``x`` and one output ``y``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "old", [x], [y], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(made, path)
    return path


def _differ(path: Path) -> float:
    """How far the imported graph is from the file, both on onnxruntime."""
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    wanted = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    imported = import_onnx(resolve(str(path), path.parent), None)
    found = session_of(imported.model).run(None, {"x": x})[0]
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


def _scales(*numbers: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.float32), "scales")


@pytest.mark.parametrize(
    "scales", [(2, 2), (2.3, 1.4), (3, 1), (0.6, 0.7), (0.5, 1), (1, 1)], ids=str
)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("op", ["Resize-10", "Upsample-9", "Upsample-7"])
def test_sizes(op: str, mode: str, scales: tuple[float, float], tmp_path: Path) -> None:
    name, opset = op.split("-")
    if name == "Upsample" and min(scales) < 1:
        pytest.skip("Upsample only grows")
    given: dict[str, Any] = {"mode": mode}
    weights = [_scales(1, 1, *scales)]
    if opset == "7":
        given["scales"], weights = [1.0, 1.0, *map(float, scales)], []
    node = helper.make_node(name, ["x", *(w.name for w in weights)], ["y"], **given)
    assert _differ(_file(tmp_path / "m.onnx", [node], int(opset), *weights)) <= TOLERANCE


def test_sizes_in_a_branch(tmp_path: Path) -> None:
    """What a subgraph resizes is found, too."""
    inner = helper.make_node("Resize", ["x", "scales"], ["z"], mode="linear")
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], "branch", [], [z])
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    path = _file(tmp_path / "m.onnx", [node], 10, _scales(1, 1, 2, 2), yes)
    assert _differ(path) <= TOLERANCE


def test_both_roundings_at_once_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Resize", ["x", "scales"], ["y"], name="resized", mode="nearest")
    path = _file(tmp_path / "m.onnx", [node], 10, _scales(1, 1, 2, 0.5))
    with pytest.raises(SourceError, match="cannot be raised") as caught:
        lc.build(model=str(path), output=tmp_path / "out")
    assert "resized" in (caught.value.where or "")
    assert "[1.0, 1.0, 2.0, 0.5]" in (caught.value.found or "")
    assert "opset_version=11" in (caught.value.hint or "")


def test_so_are_scales_that_are_not_in_the_file(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["scales"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["x", "scales"], ["y"], mode="nearest"),
    ]
    path = _file(tmp_path / "m.onnx", nodes, 10)
    with pytest.raises(SourceError, match="cannot be raised") as caught:
        lc.build(model=str(path), output=tmp_path / "out")
    assert "known when it runs" in (caught.value.found or "")


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -1])
@pytest.mark.parametrize("opset", [7, 11, 12, 13])
@pytest.mark.parametrize("op", ["Hardmax", "Softmax", "LogSoftmax"])
def test_the_axes_of_a_maximum(op: str, opset: int, axis: int | None, tmp_path: Path) -> None:
    if opset < 11 and axis == -1:
        pytest.skip("axes count from the front there")
    given = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node(op, ["x"], ["largest"], **given),
        helper.make_node("Mul", ["largest", "x"], ["y"]),
    ]
    assert _differ(_file(tmp_path / "m.onnx", nodes, opset)) <= TOLERANCE


# Ops whose attributes became inputs, or whose defaults changed: by their last old opset.
OTHERS: dict[str, tuple[int, dict[str, Any], list[float] | None]] = {
    "Clip": (10, {"min": -0.5, "max": 0.5}, None),
    "Pad": (10, {"pads": [0, 0, 1, 0, 0, 0, 0, 2], "value": 3.0}, None),
    "Slice": (9, {"starts": [1, 0], "ends": [3, -1], "axes": [1, 3]}, None),
    "Unsqueeze": (12, {"axes": [0, 2]}, None),
    "ReduceSum": (12, {"axes": [1, -1], "keepdims": 0}, None),
    "ReduceMean": (17, {"axes": [2]}, None),
    "ReduceL2": (17, {"axes": [3]}, None),
    "ReduceMax": (10, {"axes": [3]}, None),
    "LpPool": (10, {"kernel_shape": [2, 2], "p": 2}, None),
    "AveragePool": (9, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, None),
    "MaxPool": (9, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, None),
    "Dropout": (9, {"ratio": 0.5}, None),
    "Elu": (7, {"alpha": 0.5}, None),
    "PRelu": (8, {}, [0.25]),
    "Pow": (11, {}, [2.0]),
    "Mod": (12, {"fmod": 1}, [0.7]),
    "InstanceNormalization": (7, {"epsilon": 1e-3}, [1.0, 2.0, 3.0]),
    "Cast": (8, {"to": TensorProto.FLOAT}, None),
}


@pytest.mark.parametrize("op", OTHERS)
def test_what_else_has_changed(op: str, tmp_path: Path) -> None:
    opset, given, held = OTHERS[op]
    weights = [] if held is None else [numpy_helper.from_array(np.array(held, np.float32), "w")]
    names = ["x", *(w.name for w in weights)] + ["w"] * (op == "InstanceNormalization")
    node = helper.make_node(op, names, ["y"], **given)
    assert _differ(_file(tmp_path / "m.onnx", [node], opset, *weights)) <= TOLERANCE


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [9, 12, 13])
def test_a_maximum_that_branches_read(op: str, opset: int, tmp_path: Path) -> None:
    """At any depth; the names of what they read and make are those of others already."""
    z, w = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "zw")
    inmost = helper.make_graph([helper.make_node("Mul", ["h", "h.0"], ["w"])], "c", [], [w])
    made = [
        helper.make_node(op, ["h"], ["h.0"], axis=1),
        helper.make_node("If", ["yes"], ["z"], then_branch=inmost, else_branch=inmost),
    ]
    branch = helper.make_graph(made, "b", [], [z])
    nodes = [
        helper.make_node(op, ["x"], ["h"], axis=1),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    assert _differ(_file(tmp_path / "m.onnx", nodes, opset, yes)) <= TOLERANCE


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12])
def test_what_is_dropped_without_training(given: bool, opset: int, tmp_path: Path) -> None:
    """Nothing; its mask says so in numbers, then in no for all, then in yes for all."""
    kind = TensorProto.FLOAT if opset < 10 else TensorProto.BOOL
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y, mask = (helper.make_tensor_value_info(name, kind, SHAPE) for name in ("y", "mask"))
    ratio = {} if opset >= 12 else {"ratio": 0.5}
    nodes = [
        helper.make_node("Dropout", ["x"], ["kept", "mask"], **ratio),
        helper.make_node("Cast", ["mask"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["kept", "number"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=kind),
    ]
    graph = helper.make_graph(nodes, "old", [x], [y, mask] if given else [y])
    path = tmp_path / "m.onnx"
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    feeds = {"x": np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)}
    wanted = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    imported = import_onnx(resolve(str(path), path.parent), None)
    found = session_of(imported.model).run(None, feeds)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_steps_over_a_batch_are_refused(tmp_path: Path) -> None:
    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "abcd"]
    added = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Neg", ["c"], ["d"])]
    body = helper.make_graph(added, "body", one[:2], one[2:])
    node = helper.make_node(
        "Scan", ["", "first", "x"], ["last", "y"], name="steps", body=body, num_scan_inputs=1
    )
    first = helper.make_tensor_value_info("first", TensorProto.FLOAT, [1, 2])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 2]) for name in "xy")
    graph = helper.make_graph([node], "old", [first, x], [y])
    path, opsets = tmp_path / "m.onnx", [helper.make_opsetid("", 8)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(SourceError, match="a Scan of an old opset") as caught:
        import_onnx(resolve(str(path), tmp_path), None)
    assert "steps" in (caught.value.where or "")
    assert "opset_version=9" in (caught.value.hint or "")
