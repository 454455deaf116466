"""An ONNX file with its weights in another file: found wherever they stand, confined, carried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve

from .harness import run, session_of

RNG = np.random.default_rng(0)
SMALL = RNG.standard_normal(8).astype(np.float32)
LARGE = RNG.standard_normal((64, 8)).astype(np.float32)


class Model(torch.nn.Module):
    """Weights above and below the size that a weight file takes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


def test_a_file_of_torch_runs_from_the_artifact_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model().eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        model, (torch.ones(2, 16),), dynamo=True, dynamic_shapes=(batch,), verbose=False
    )
    source = tmp_path / "source"
    source.mkdir()
    program.save(source / "m.onnx", external_data=True)
    expected = {name: _sha256(source / name) for name in ("m.onnx", "m.onnx.data")}
    artifact = lc.build(model=str(source / "m.onnx"), output=tmp_path / "out")
    assert artifact.manifest.lock["inputs"] == expected
    for path in source.iterdir():
        path.unlink()
    x = RNG.standard_normal((5, 16)).astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    with lc.load(artifact.path) as engine:
        (found,) = engine.run({"x": x}).values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _outside(array: np.ndarray, name: str, folder: Path, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(array, name)
    (folder / location).write_bytes(tensor.raw_data)
    set_external_data(tensor, location, 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    return tensor


def _constant(array: np.ndarray, folder: Path, location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=_outside(array, "c", folder, location))


def _in_a_constant(folder: Path, location: str) -> onnx.ModelProto:
    nodes = [_constant(SMALL, folder, location), helper.make_node("Add", ["x", "c"], ["y"])]
    return _model(nodes)


def _in_an_initializer(folder: Path, location: str) -> onnx.ModelProto:
    weights = [_outside(SMALL, "c", folder, location)]
    return _model([helper.make_node("Add", ["x", "c"], ["y"])], weights)


def _in_a_branch(folder: Path, location: str) -> onnx.ModelProto:
    """An initializer of a subgraph, of a size that weight files take."""
    rows = LARGE.repeat(8, axis=0)
    weights = [_outside(rows, "c", folder, location)]
    given = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    summed = helper.make_node("ReduceSum", ["c", "first"], ["s"], keepdims=0)
    first = numpy_helper.from_array(np.array([0]), "first")
    add = helper.make_node("Add", ["x", "s"], ["z"])
    branch = helper.make_graph([summed, add], "branch", [], given, [*weights, first])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "other", [], given)
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    return _model(
        [yes, helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=other)]
    )


def _in_a_function(folder: Path, location: str) -> onnx.ModelProto:
    nodes = [_constant(SMALL, folder, location), helper.make_node("Add", ["a", "c"], ["b"])]
    opsets = [helper.make_opsetid("", 21)]
    function = helper.make_function("own", "Shift", ["a"], ["b"], nodes, opsets)
    return _model([helper.make_node("Shift", ["x"], ["y"], domain="own")], functions=[function])


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 8]) for n in "xy")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights or []),
        opset_imports=opsets,
        functions=functions or [],
        ir_version=10,
    )


Make = Callable[[Path, str], onnx.ModelProto]
PLACES: dict[str, tuple[Make, np.ndarray]] = {
    "an initializer": (_in_an_initializer, SMALL),
    "a constant": (_in_a_constant, SMALL),
    "a branch": (_in_a_branch, 8 * LARGE.sum(0)),
    "a function": (_in_a_function, SMALL),
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_carried_wherever_they_stand(place: str, tmp_path: Path) -> None:
    make, added = PLACES[place]
    path = tmp_path / "m.onnx"
    path.write_bytes(make(tmp_path, "w.bin").SerializeToString())
    artifact = lc.build(model=str(path), output=tmp_path / "out")
    assert set(artifact.manifest.lock["inputs"]) == {"m.onnx", "w.bin"}
    (tmp_path / "w.bin").unlink()
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    with lc.load(artifact.path) as engine:
        np.testing.assert_allclose(engine.run({"x": x})["y"], x + added, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["above", "absolute", "link"])
def test_weights_outside_the_folder_are_refused(place: str, how: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret.bin"
    folder.mkdir()
    location = {"above": "../secret.bin", "absolute": str(secret), "link": "w.bin"}[how]
    if how == "link":
        (folder / "w.bin").symlink_to(secret)
    (folder / "m.onnx").write_bytes(PLACES[place][0](folder, location).SerializeToString())
    assert secret.is_file()
    with pytest.raises(SourceError, match="outside its own folder") as caught:
        import_onnx(resolve("m.onnx", folder), None)
    assert location in str(caught.value)


@pytest.mark.parametrize("place", PLACES)
def test_links_of_the_hub_cache_are_followed(place: str, tmp_path: Path) -> None:
    """There a snapshot links to files named by their digests; onnx_ir reads nothing through it."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0f1e2d"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    make, added = PLACES[place]
    (blobs / "m").write_bytes(make(blobs, "w.bin").SerializeToString())
    for name, blob in (("m.onnx", "m"), ("w.bin", "w.bin")):
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    source = resolve("m.onnx", snapshot)
    exported = import_onnx(source, None)
    assert set(source.digests()) == {"m.onnx", "w.bin"}
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    found = run(session_of(exported.model), {"x": x})["y"]
    np.testing.assert_allclose(found, x + added, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_weights_that_end_too_early(place: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(PLACES[place][0](tmp_path, "w.bin").SerializeToString())
    data = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(data[:-1])
    with pytest.raises(SourceError, match="missing or truncated"):
        import_onnx(resolve("m.onnx", tmp_path), None)
