"""ONNX files of any opset: raised to ours with the same numbers, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.dialect import OPSET
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve
from tests.cli.onnx_files import layered_model

from .harness import run, session_of

RNG = np.random.default_rng(0)
UP = RNG.standard_normal((64, 128)).astype(np.float32)
DOWN = RNG.standard_normal((128, 64)).astype(np.float32)
NODES = [
    helper.make_node("MatMul", ["x", "up"], ["h"]),
    helper.make_node("Div", ["h", "root"], ["t"]),
    helper.make_node("Erf", ["t"], ["e"]),
    helper.make_node("Add", ["e", "one"], ["s"]),
    helper.make_node("Mul", ["h", "s"], ["m"]),
    helper.make_node("Mul", ["m", "half"], ["g"]),
    helper.make_node("MatMul", ["g", "down"], ["z"]),
    helper.make_node("ReduceMean", ["z"], ["mean"], axes=[-1]),
    helper.make_node("Sub", ["z", "mean"], ["y"]),
]


def _weights() -> list[TensorProto]:
    numbers = {"up": UP, "down": DOWN, "root": 2**0.5, "one": 1.0, "half": 0.5}
    return [numpy_helper.from_array(np.float32(a), n) for n, a in numbers.items()]


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto],
    opset: int,
    *,
    domain: str = "",
    ir_version: int = 8,
    listed: tuple[str, ...] = (),
) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 64]) for n in "xy")
    inputs = [x] + [
        helper.make_tensor_value_info(w.name, w.data_type, w.dims)
        for w in weights
        if w.name in listed
    ]
    graph = helper.make_graph(nodes, "old", inputs, [y], weights)
    opsets = [helper.make_opsetid(domain, opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def _wanted(path: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_an_older_file_takes_what_passes_write(opset: int, quantize: str, tmp_path: Path) -> None:
    """Gelu has come with opset 20, DequantizeLinear's blocks with 21."""
    path = _save(tmp_path / "m.onnx", NODES, _weights(), opset)
    artifact = lc.build(model=str(path), output=tmp_path / "out", quantize=quantize)
    (engine,) = artifact.manifest.engines
    assert engine["compared"]["passes"] is True
    x = RNG.standard_normal((5, 64)).astype(np.float32)
    wanted = _wanted(path, x)
    with lc.load(artifact.path) as model:
        found = model.run({"x": x})["y"]
    off = {"none": 1e-5, "int8": 0.03, "int4": 0.2}[quantize]
    assert np.abs(found - wanted).max() <= off * np.abs(wanted).max()


@pytest.mark.parametrize("opset", [1, 6, 25])
def test_an_opset_of_another_time_is_refused(opset: int, tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", NODES, _weights(), opset)
    with pytest.raises(SourceError, match="opset") as caught:
        import_onnx(resolve(str(path), tmp_path), None)
    assert caught.value.found == str(opset)
    assert "opset_version=" in (caught.value.hint or "")


def test_both_names_of_the_standard_domain(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", NODES, _weights(), 17, domain="ai.onnx")
    exported = import_onnx(resolve(str(path), tmp_path), None)
    assert exported.model.graph.opset_imports == {"": OPSET}


def test_nodes_in_another_order(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", NODES[::-1], _weights(), 17)
    exported = import_onnx(resolve(str(path), tmp_path), None)
    x = RNG.standard_normal((5, 64)).astype(np.float32)
    found = run(session_of(exported.model), {"x": x})["y"]
    np.testing.assert_allclose(found, _wanted(path, x), rtol=1e-4, atol=1e-4)


def test_an_op_that_only_onnxruntime_has_at_that_opset(tmp_path: Path) -> None:
    """Its own optimizer writes such files: ONNX has LayerNormalization from opset 17 on."""
    nodes = [helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=-1)]
    scale = numpy_helper.from_array(UP[:, 0], "scale")
    path = _save(tmp_path / "m.onnx", nodes, [scale], 14)
    exported = import_onnx(resolve(str(path), tmp_path), None)
    x = RNG.standard_normal((5, 64)).astype(np.float32)
    found = run(session_of(exported.model), {"x": x})["y"]
    np.testing.assert_allclose(found, _wanted(path, x), rtol=1e-4, atol=1e-4)


def test_a_small_weight_in_another_file(tmp_path: Path) -> None:
    weights = _weights()
    root = next(w for w in weights if w.name == "root")
    (tmp_path / "w.bin").write_bytes(root.raw_data)
    set_external_data(root, "w.bin", 0, len(root.raw_data))
    root.ClearField("raw_data")
    path = _save(tmp_path / "m.onnx", NODES, weights, 13)
    exported = import_onnx(resolve(str(path), tmp_path), None)
    x = RNG.standard_normal((5, 64)).astype(np.float32)
    found = run(session_of(exported.model), {"x": x})["y"]
    np.testing.assert_allclose(found, _wanted(path, x), rtol=1e-4, atol=1e-4)


def test_a_weight_of_few_bytes_and_many_numbers_in_another_file(tmp_path: Path) -> None:
    """onnx_ir leaves it to the checker, by its bytes, and that would look where it is called."""
    model = onnx.load(layered_model(tmp_path))
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    apart = import_onnx(resolve(str(path), tmp_path), None)
    assert [each.name for each in apart.model.graph.outputs] == ["h3"]


def test_weights_that_had_to_be_inputs_are_weights(tmp_path: Path) -> None:
    names = ("up", "down", "root", "one", "half")
    path = _save(tmp_path / "m.onnx", NODES, _weights(), 9, ir_version=3, listed=names)
    exported = import_onnx(resolve(str(path), tmp_path), None)
    assert [value.name for value in exported.model.graph.inputs] == ["x"]
    assert "up_by_rows" in exported.model.graph.initializers


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([helper.make_node("Frobnicate", ["x"], ["y"], name="odd")], "Frobnicate"),
        ([helper.make_node("Add", ["x", "nowhere"], ["y"])], "nowhere"),
        ([helper.make_node("Neg", ["x"], ["z"])], "y"),
    ],
)
def test_what_is_no_valid_model(nodes: list[onnx.NodeProto], said: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", nodes, [], 17)
    with pytest.raises(SourceError, match=said):
        lc.build(model=str(path), output=tmp_path / "out", check=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["everything", "opset"])
def test_what_says_too_little(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if missing == "everything":
        path.write_bytes(b"")
    else:
        model = onnx.load(_save(path, NODES, _weights(), 17))
        del model.opset_import[:]
        onnx.save(model, path)
    with pytest.raises(SourceError, match="no outputs" if missing == "everything" else "opset"):
        import_onnx(resolve(str(path), tmp_path), None)


def test_an_output_without_a_shape_gets_one(tmp_path: Path) -> None:
    model = onnx.load(_save(tmp_path / "m.onnx", NODES, _weights(), 17))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "m.onnx")
    exported = import_onnx(resolve("m.onnx", tmp_path), None)
    (output,) = exported.model.graph.outputs
    assert output.shape is not None
    assert output.shape[-1] == 64
