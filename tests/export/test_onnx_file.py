"""An ONNX file as the source: linear layers in one form, external data confined, same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton_compile.errors import RecipeError, SourceError
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve
from lepton_passes.lowering.ort.linear import LowerLinear

from .harness import run, session_of

RNG = np.random.default_rng(0)
W1 = RNG.standard_normal((8, 6)).astype(np.float32)
W2 = RNG.standard_normal((4, 6)).astype(np.float32)
BIAS = RNG.standard_normal(4).astype(np.float32)


def _file(folder: Path, opset: int = 21) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Gemm", ["h", "w2", "b"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(a, n) for n, a in (("w1", W1), ("w2", W2), ("b", BIAS))],
    )
    opsets = [helper.make_opsetid("", opset)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_linear_layers_take_one_form(tmp_path: Path) -> None:
    exported = import_onnx(resolve(str(_file(tmp_path)), tmp_path), None)
    ops = [node.op_type for node in exported.model.graph]
    assert ops == ["Transpose", "MatMul", "Transpose", "MatMul", "Add"]
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    found = run(session_of(exported.model), {"x": x})["y"]
    np.testing.assert_allclose(found, x @ W1 @ W2.T + BIAS, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("called", ["w2", "x", "h", "y"])
def test_a_name_that_passes_give_may_be_taken(called: str, tmp_path: Path) -> None:
    """The weight (out, in) of w1 was another one of that name, or the input of the graph."""
    path = _file(tmp_path)
    graph = onnx.load(path)
    everywhere = [*graph.graph.input, *graph.graph.output, *graph.graph.initializer]
    for each in everywhere:
        each.name = "w1_by_rows" if each.name == called else each.name
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = ["w1_by_rows" if name == called else name for name in names]
    onnx.save(graph, path)
    exported = import_onnx(resolve(str(path), tmp_path), None)
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    feeds = {"w1_by_rows" if called == "x" else "x": x}
    (found,) = run(session_of(exported.model), feeds).values()
    np.testing.assert_allclose(found, x @ W1 @ W2.T + BIAS, rtol=1e-5, atol=1e-5)


def test_refuses_a_newer_opset(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="newer opset"):
        import_onnx(resolve(str(_file(tmp_path, opset=99)), tmp_path), None)


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(SourceError):
        import_onnx(resolve(str(path), tmp_path), None)


def _reader(folder: Path, length: int | str) -> Path:
    """A file that takes ids of this length, or of any where that is a name."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", length])
    out = helper.make_tensor_value_info("y", TensorProto.INT64, ["batch", length])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input_ids"], ["y"])], "r", [ids], [out]
    )
    path = folder / f"{length}.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_sequences_end_where_the_recipe_says(tmp_path: Path) -> None:
    open_, fixed = (resolve(str(_reader(tmp_path, n)), tmp_path) for n in ("sequence", 16))
    assert import_onnx(open_, None, 128).length == 128
    assert import_onnx(open_, None).length == 1 << 20
    assert import_onnx(fixed, None, 16).length == import_onnx(fixed, None).length == 16
    for other in (8, 128):
        with pytest.raises(RecipeError, match="sequences of one length") as caught:
            import_onnx(fixed, None, other)
        assert (caught.value.where, caught.value.available) == ("shapes.sequence", ("16",))


def _branches(folder: Path, name: str) -> Path:
    """A layer and a branch, in which something is called ``name``."""
    out = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["rows", 6]) for each in "tey"]
    then = [
        helper.make_node("Relu", ["h"], [name]),
        helper.make_node("Add", ["h", name], ["t"]),
    ]
    branches = {
        "then_branch": helper.make_graph(then, "then", [], out[:1]),
        "else_branch": helper.make_graph(
            [helper.make_node("Identity", ["h"], ["e"])], "else", [], out[1:2]
        ),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("If", ["c"], ["y"], **branches),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph(nodes, "b", inputs, out[2:], [numpy_helper.from_array(W1, "w1")])
    path = folder / "branches.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("name", ["val_0", "inner_0", "relu", "w1_by_rows"])
def test_names_in_branches_are_those_of_one_value(name: str, tmp_path: Path) -> None:
    """New values are called val_0 and so on, as those of PyTorch's exporter are."""
    exported = import_onnx(resolve(str(_branches(tmp_path, name)), tmp_path), None)
    LowerLinear()(exported.model)
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    found = run(session_of(exported.model), {"x": x, "c": np.array(True)})["y"]
    np.testing.assert_allclose(found, x @ W1 + np.maximum(x @ W1, 0), rtol=1e-5, atol=1e-5)
