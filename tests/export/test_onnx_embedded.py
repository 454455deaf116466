"""Weights that stand inside an ONNX file stay there: the same model, whose bytes nobody holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.onnx_embedded import LARGE, load_onnx, parsed_bytes
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve

from .harness import session_of

RNG = np.random.default_rng(0)
COLUMNS = 96


def a_model(rows: int = 64, layers: int = 3) -> onnx.ModelProto:
    """Products in a row, of weights of several types, and a small one that is added."""
    weights, nodes = [], []
    for number in range(layers):
        shape = (rows, COLUMNS) if number % 2 == 0 else (COLUMNS, rows)
        values = RNG.standard_normal(shape).astype(np.float16 if number == 1 else np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        last, made = f"y{number - 1}" if number else "x", f"y{number}"
        nodes.append(helper.make_node("Cast", [f"w{number}"], [f"c{number}"], to=1))
        nodes.append(helper.make_node("MatMul", [last, f"c{number}"], [made]))
    weights.append(numpy_helper.from_array(np.ones(COLUMNS, np.float32), "small"))
    nodes.append(helper.make_node("Add", [f"y{layers - 1}", "small"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", rows])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", COLUMNS])],
        weights,
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="tests")


def test_large_weights_are_read_where_they_stand(tmp_path: Path) -> None:
    proto = a_model()
    onnx.save(proto, tmp_path / "m.onnx")
    held = sum(len(t.raw_data) for t in proto.graph.initializer if len(t.raw_data) >= LARGE)
    size = (tmp_path / "m.onnx").stat().st_size
    assert size - held <= parsed_bytes(tmp_path / "m.onnx") < size - held + 1000
    found = load_onnx(tmp_path / "m.onnx")
    expected = ir.serde.deserialize_model(proto)
    assert [*found.graph.initializers] == [*expected.graph.initializers]
    assert found.producer_name == expected.producer_name
    for name, value in expected.graph.initializers.items():
        tensor, wanted = found.graph.initializers[name].const_value, value.const_value
        assert tensor is not None
        assert wanted is not None
        assert isinstance(tensor, ir.ExternalTensor) == (wanted.nbytes >= LARGE)
        assert (tensor.dtype, tensor.shape) == (wanted.dtype, wanted.shape)
        assert tensor.tobytes() == wanted.tobytes()


def test_the_graph_computes_the_same(tmp_path: Path) -> None:
    proto = a_model()
    onnx.save(proto, tmp_path / "m.onnx")
    assert resolve("m.onnx", tmp_path).digests().keys() == {"m.onnx"}
    made = lc.build(model=str(tmp_path / "m.onnx"), output=tmp_path / "out", verify=False)
    x = RNG.standard_normal((2, 64)).astype(np.float32)
    (wanted,) = session_of(ir.serde.deserialize_model(proto)).run(None, {"x": x})
    with lc.load(made.path, threads=1) as engine:
        np.testing.assert_allclose(engine.run({"x": x})["out"], wanted, rtol=1e-4, atol=1e-3)


def _in_floats(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.float_data.extend(numpy_helper.to_array(tensor).reshape(-1))
    tensor.ClearField("raw_data")


def _outside(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="m.bin")


def _unlike_its_shape(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] += 1


@pytest.mark.parametrize("change", [_in_floats, _outside, _unlike_its_shape])
def test_what_is_written_in_another_way_is_as_it_was(
    change: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    proto = a_model()
    values = proto.graph.initializer[0].raw_data
    (tmp_path / "m.bin").write_bytes(values)
    change(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    assert parsed_bytes(tmp_path / "m.onnx") > len(values) or change is _outside
    tensor = load_onnx(tmp_path / "m.onnx").graph.initializers["w0"].const_value
    assert tensor is not None
    own = isinstance(tensor, ir.ExternalTensor) and tensor.location == "m.onnx"
    assert not own
    if change is _unlike_its_shape:
        with pytest.raises(SourceError, match="not a valid model"):
            import_onnx(resolve("m.onnx", tmp_path), None)
    else:
        assert tensor.tobytes() == values


def test_a_damaged_file_is_protobufs_to_refuse(tmp_path: Path) -> None:
    data = a_model().SerializeToString()
    for bad in (b"", data[:-40], data[: len(data) // 2], b"\xff" * 200, b"\x3a" + b"\xff" * 12):
        (tmp_path / "m.onnx").write_bytes(bad)
        with pytest.raises(SourceError):
            import_onnx(resolve("m.onnx", tmp_path), None)


def test_fields_that_are_not_known_are_no_reason_to_hold_it(tmp_path: Path) -> None:
    """Of other versions: a number, eight bytes, bytes and four bytes."""
    strange = b"\xf8\x3f\x81\x01\xf9\x3f" + b"\1" * 8
    strange += b"\xfa\x3f\x02ab\xfd\x3f" + b"\1" * 4
    (tmp_path / "m.onnx").write_bytes(strange + a_model().SerializeToString() + strange)
    tensor = load_onnx(tmp_path / "m.onnx").graph.initializers["w0"].const_value
    assert isinstance(tensor, ir.ExternalTensor)


GROWTH = """
import re, sys
from pathlib import Path
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

small, large = (resolve(path, Path()) for path in sys.argv[1:])
import_onnx(small, None)  # with the libraries that it takes
small.digests()
before = held()
model = import_onnx(large, None).model
large.digests()
print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is told by /proc")
def test_an_import_holds_a_small_part_of_the_file(tmp_path: Path) -> None:
    onnx.save(a_model(), tmp_path / "small.onnx")
    onnx.save(a_model(rows=1 << 16), tmp_path / "large.onnx")
    size = (tmp_path / "large.onnx").stat().st_size >> 10
    command = [sys.executable, "-c", GROWTH, tmp_path / "small.onnx", tmp_path / "large.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert int(done.stdout) < size // 4


@pytest.mark.parametrize("place", ["graph", "branch"])
def test_sparse_weights_are_refused(place: str, tmp_path: Path) -> None:
    """onnx_ir passes over them: what reads one then seems to read nothing."""
    proto = a_model()
    values = numpy_helper.from_array(np.ones(2, np.float32), "few")
    places = numpy_helper.from_array(np.array([0, 9], np.int64), "places")
    few = helper.make_sparse_tensor(values, places, [4, 4])
    branch = helper.make_graph([], "b", [], [], sparse_initializer=[few])
    if place == "graph":
        proto.graph.sparse_initializer.append(few)
    else:
        proto.graph.node.append(helper.make_node("If", ["yes"], [], then_branch=branch))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(SourceError, match="sparse") as caught:
        import_onnx(resolve(str(tmp_path / "m.onnx"), tmp_path), None)
    assert caught.value.found == "few"
