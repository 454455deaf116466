"""ONNX files through the whole build: numbers of the file itself, in int8, or a reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_compile as lc
from lepton_compile.api.describe import model_entry
from lepton_compile.api.estimates import BASE_MEMORY
from lepton_compile.api.findings import Findings, keep_failure
from lepton_compile.errors import EngineError, PassError, RecipeError, SourceError
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve
from lepton_compile.pipeline import NumericCheck

RNG = np.random.default_rng(0)
UP = RNG.standard_normal((64, 128)).astype(np.float32)
DOWN = RNG.standard_normal((128, 64)).astype(np.float32)
LAYERS = [
    helper.make_node("MatMul", ["x", "up"], ["h"]),
    helper.make_node("Relu", ["h"], ["r"]),
    helper.make_node("MatMul", ["r", "down"], ["y"]),
]
NAMES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


def _file(path: Path, nodes: list[Any], weights: list[Any], kind: str = "float32") -> Path:
    x, z, y = (helper.make_tensor_value_info(n, NAMES[kind], ["rows", 64]) for n in "xzy")
    reads = {name for node in nodes for name in node.input}
    inputs = [x, z] if "z" in reads else [x]
    graph = helper.make_graph(nodes, "g", inputs, [y], weights)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _error(path: Path, out: Path) -> float:
    """Of the int8 engine, as a part of the largest number of the file itself."""
    lc.build(model=str(path), output=out, quantize="int8")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = {i.name: RNG.standard_normal((5, 64)).astype(np.float32) for i in session.get_inputs()}
    (wanted,) = session.run(None, rows)
    with lc.load(out) as model:
        found = model.run(rows)["y"]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("shapes", [{"batch": 4}, {"sequence": 8}, {"batch": [1, 4]}], ids=str)
def test_a_range_of_what_the_file_does_not_have(shapes: dict[str, Any], tmp_path: Path) -> None:
    """Callers are held to ranges by the names of dimensions."""
    weights = [numpy_helper.from_array(UP, "up"), numpy_helper.from_array(DOWN, "down")]
    path = _file(tmp_path / "m.onnx", LAYERS, weights)
    recipe: dict[str, Any] = {"model": str(path), "shapes": shapes}
    for call in (lc.plan, lambda given: lc.build(given, output=tmp_path / "out")):
        with pytest.raises(RecipeError, match="no dimension of this name") as caught:
            call(recipe)
    (name,) = shapes
    assert caught.value.where == f"shapes.{name}"
    assert caught.value.found == f"{'rows' if name == 'batch' else 64} in x"
    assert caught.value.available == ("rows",)


def test_a_range_that_the_file_is_fixed_to_is_no_mistake(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(UP, "up"), numpy_helper.from_array(DOWN, "down")]
    path = _file(tmp_path / "m.onnx", LAYERS, weights)
    assert lc.plan({"model": str(path), "shapes": {"sequence": 64}}).engines


def test_numbers_that_numpy_has_no_arrays_of(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["rows", 64])
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(EngineError, match="no arrays of this type") as caught:
        lc.build(model=str(path), output=tmp_path / "out")
    assert (caught.value.where, caught.value.found) == ("y", "BFLOAT16")


def test_a_weight_that_is_read_both_ways_is_packed_twice(tmp_path: Path) -> None:
    """Two packings of one weight once took the same bytes of the file."""
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("MatMul", ["z", "up"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Gemm", ["c", "up"], ["y"], transB=1),
    ]
    path = _file(tmp_path / "m.onnx", nodes, [numpy_helper.from_array(UP, "up")])
    assert _error(path, tmp_path / "out") < 0.05


def test_constants_are_weights_and_told_apart(tmp_path: Path) -> None:
    """Exporters give each tensor of a Constant the same name."""
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, "value"))
        for name, array in (("up", UP), ("down", DOWN))
    ]
    path = _file(tmp_path / "m.onnx", constants + LAYERS, [])
    assert 0 < _error(path, tmp_path / "out") < 0.05


def test_an_input_called_as_ids_may_have_another_form(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["input_ids"], ["y"])]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "sequence", 8])
        for n in ("input_ids", "y")
    )
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    given = RNG.standard_normal((2, 3, 8)).astype(np.float32)
    with lc.load(lc.build(model=str(path), output=tmp_path / "out")) as model:
        assert np.array_equal(model.run({"input_ids": given})["y"], np.maximum(given, 0))


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_weights_that_no_kernel_rounds_are_told(kind: str, tmp_path: Path) -> None:
    arrays = {"up": UP, "down": DOWN}
    weights = [numpy_helper.from_array(a.astype(kind), n) for n, a in arrays.items()]
    path = _file(tmp_path / "m.onnx", LAYERS, weights, kind)
    with pytest.raises(RecipeError, match="no weights that ort-cpu could round") as caught:
        lc.build(model=str(path), quantize="int8", output=tmp_path / "out")
    assert caught.value.available == ("FLOAT",)


def test_halves_are_compared_too(tmp_path: Path) -> None:
    arrays = {"up": UP, "down": DOWN}
    weights = [numpy_helper.from_array(a.astype(np.float16), n) for n, a in arrays.items()]
    path = _file(tmp_path / "m.onnx", LAYERS, weights, "float16")
    artifact = lc.build(model=str(path), output=tmp_path / "out")
    assert artifact.manifest.engines[0]["compared"]["passes"] is True


@pytest.mark.parametrize(("rows", "sizes"), [(70, [64]), (20, [64, 32, 16]), (4, [64, 32, 16, 8])])
def test_passes_are_compared_on_as_many_tokens_as_there_are_positions(
    rows: int, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of 20 rows left passes uncompared, and nothing but a failure tells of it."""
    tables = {"words": UP, "positions": UP[:1].repeat(rows, 0), "zero": np.int64([0])}
    weights = [numpy_helper.from_array(a, n) for n, a in (tables | {"down": DOWN}).items()]
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["h"]),
        helper.make_node("Shape", ["input_ids"], ["count"], start=1),
        helper.make_node("Slice", ["positions", "zero", "count", "zero"], ["p"]),
        helper.make_node("Add", ["h", "p"], ["r"]),
        helper.make_node("MatMul", ["r", "down"], ["y"]),
    ]
    x = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 64])
    graph, path = helper.make_graph(nodes, "g", [x], [y], weights), tmp_path / "m.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    tried: list[int] = []

    def outputs(check: NumericCheck, model: Any) -> Any:
        size = check._feeds["input_ids"].shape[1]
        if size not in tried:
            tried.append(size)
        return whole(check, model)

    whole = NumericCheck._outputs
    monkeypatch.setattr(NumericCheck, "_outputs", outputs)
    artifact = lc.build(model=str(path), output=tmp_path / "out", quantize="int8")
    assert tried == sizes
    told = artifact.manifest.engines[0]["compared"]["passes"]
    assert told is True if rows >= sizes[-1] else "does not run on synthetic inputs" in told


def test_what_onnx_has_in_fp32_alone_stays_so_in_an_engine_of_halves(tmp_path: Path) -> None:
    """Scales of Resize were halves: the build was compared in fp32, and its engine never opened."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Resize", ["h", "", "scales"], ["y"], mode="nearest"),
    ]
    arrays = {"w": UP.ravel()[:4].reshape(2, 2, 1, 1), "scales": np.float32([1, 1, 2, 2])}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    sizes = {"x": ["n", 2, 4, 4], "y": ["n", 2, 8, 8]}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items())
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    lc.build(model=str(path), output=tmp_path / "out", target="ort-cuda", compute="fp16")
    engine = tmp_path / "out/engines/ort-cuda/model.onnx"
    sessions = [ort.InferenceSession(p, providers=["CPUExecutionProvider"]) for p in (path, engine)]
    feeds = {"x": RNG.standard_normal((1, 2, 4, 4)).astype(np.float32)}
    wanted, found = (session.run(None, feeds)[0] for session in sessions)
    np.testing.assert_allclose(found, wanted, atol=5e-3)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_plan_predicts_the_engine_of_a_file(quantize: str, tmp_path: Path) -> None:
    """Such files were not planned at all."""
    weights = [numpy_helper.from_array(a, n) for n, a in {"up": UP, "down": DOWN}.items()]
    path = _file(tmp_path / "m.onnx", LAYERS, weights)
    named: dict[str, Any] = {"model": str(path), "quantize": quantize}
    plan = lc.plan(**named, target=["ort-cpu"])
    assert [*tmp_path.iterdir()] == [path]
    built = lc.build(**named, output=tmp_path / "out")
    actual = {
        name: (built.path / name).stat().st_size
        for name in built.manifest.files
        if name.startswith("engines/")
    }
    assert plan.files == pytest.approx(actual, rel=0.1)
    (engine,) = plan.engines
    assert engine.precision == built.manifest.engines[0]["precision"]
    assert engine.ops["Relu"] == 1
    assert plan.parameters == built.manifest.model["parameters"] == UP.size + DOWN.size
    assert "ONNX file" in plan.layers
    assert plan.verify is None  # there is no PyTorch model
    assert BASE_MEMORY < plan.peak_memory_bytes < BASE_MEMORY + path.stat().st_size


def test_a_plan_refuses_what_a_build_of_a_file_refuses(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(a, n) for n, a in {"up": UP, "down": DOWN}.items()]
    path = str(_file(tmp_path / "m.onnx", LAYERS, weights))
    with pytest.raises(RecipeError, match="nothing in the checkpoint is quantized"):
        lc.plan(model=path, quantize="stored")
    halves = [
        numpy_helper.from_array(a.astype(np.float16), n)
        for n, a in zip(("up", "down"), (UP, DOWN), strict=True)
    ]
    path = str(_file(tmp_path / "h.onnx", LAYERS, halves, "float16"))
    with pytest.raises(RecipeError, match="no weights that ort-cpu could round"):
        lc.plan(model=path, quantize="int8")


def test_a_plan_names_what_a_target_has_no_kernel_for(tmp_path: Path) -> None:
    nodes = [helper.make_node("Det", ["x"], ["y"])]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [2, 3, 3]), ("y", [2]))
    )
    graph = helper.make_graph(nodes, "g", [x], [y])
    path = tmp_path / "m.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    plan = lc.plan(model=str(path), target=["ort-cpu", "ort-cuda"])
    here, there = (engine.missing for engine in plan.engines)
    assert here == []
    assert there == ["the CUDA provider has no such kernel"]
    assert "Det" in plan.engines[1].refusals[0]["node"]


def test_a_sequence_is_no_output_of_an_engine(tmp_path: Path) -> None:
    path = _file(tmp_path / "m.onnx", LAYERS, [numpy_helper.from_array(UP, "up")])
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(DOWN, "down"))
    model.graph.node.append(helper.make_node("SplitToSequence", ["y"], ["s"]))
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output.append(helper.make_value_info("s", kind))
    onnx.save(model, path)
    with pytest.raises(SourceError, match="no tensor of a known type"):
        lc.build(model=str(path), output=tmp_path / "out")


def test_a_failure_without_advice_names_the_page_alone(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(UP, "up"), numpy_helper.from_array(DOWN, "down")]
    path = _file(tmp_path / "m.onnx", LAYERS, weights)
    source = resolve(str(path), tmp_path)
    exported = import_onnx(source, None)
    findings = Findings(exported=exported, model=model_entry(source, exported))
    error = PassError("the graph does not run after a pass")
    keep_failure(tmp_path / "out", findings, error)
    assert error.hint == f"{tmp_path / 'out.failed.html'} has what was measured"


def test_past_of_an_imported_decoder_is_fed_by_hand(tmp_path: Path) -> None:
    """The mask is longer than the ids by what is past, which no cache of ours describes."""
    table = numpy_helper.from_array(UP, "table")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["new"]),
        helper.make_node("Concat", ["past_key_values.0.key", "new"], ["present"], axis=1),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["wide"]),
        helper.make_node("Mul", ["present", "wide"], ["y"]),
    ]
    shapes = {"input_ids": ["rows", "new"], "attention_mask": ["rows", "total"]}
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, s) for n, s in shapes.items()]
    past = ["rows", "past", 128]
    inputs.append(helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, past))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "total", 128])
    weights = [table, numpy_helper.from_array(np.array([2]), "last")]
    graph = helper.make_graph(nodes, "g", inputs, [output], weights)
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    lc.build(model=str(path), output=tmp_path / "out")
    feeds = {
        "input_ids": np.array([[1, 2]]),
        "attention_mask": np.ones((1, 5), np.int64),
        "past_key_values.0.key": RNG.standard_normal((1, 3, 128)).astype(np.float32),
    }
    with lc.load(tmp_path / "out") as model:
        found = model.run(feeds)["y"]
    wanted = np.concatenate([feeds["past_key_values.0.key"], UP[[[1, 2]]]], axis=1)
    np.testing.assert_allclose(found, wanted)
