"""ONNX files that say what cannot be: one error, where were tracebacks and builds without end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.errors import PassError, SourceError
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve

node = helper.make_node
WEIGHT = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")


def floats(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def product(*functions: onnx.FunctionProto, op: str = "Relu", inputs: int = 1) -> onnx.ModelProto:
    """One matrix product behind an op, which may be a function of the domain ``f``."""
    domain = "f" if functions else ""
    nodes = [node(op, ["x"] * inputs, ["t"], domain=domain), node("MatMul", ["t", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [floats("x", "b", 8)], [floats("y", "b", 4)], [WEIGHT])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def calling(name: str, *others: str) -> onnx.FunctionProto:
    """A function that goes through others, one after the other."""
    steps = ["a", *(f"s{n}" for n in range(1, len(others))), "z"]
    ways = zip(others, steps, steps[1:], strict=False)
    body = [node(other, [start], [end], domain="f") for other, start, end in ways]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_function(
        "f", name, ["a"], ["z"], body or [node("Relu", ["a"], ["z"])], opsets
    )


def chain(length: int, calls: int) -> list[onnx.FunctionProto]:
    links = [calling(f"F{n}", *[f"F{n + 1}"] * calls) for n in range(length)]
    return [*links, calling(f"F{length}")]


def with_weight(change: Callable[[TensorProto], object]) -> onnx.ModelProto:
    model = product()
    change(model.graph.initializer[0])
    return model


def with_input(change: Callable[[onnx.TypeProto.Tensor], object]) -> onnx.ModelProto:
    model = product()
    change(model.graph.input[0].type.tensor_type)
    return model


def with_attribute() -> onnx.ModelProto:
    model = product()
    model.graph.node[0].attribute.add(name="a")
    return model


def renamed(old: bytes, new: bytes) -> onnx.ModelProto:
    """What protobuf reads as bytes, for it is no UTF-8."""
    data = product(calling("F"), op="F").SerializeToString()
    assert old in data
    return onnx.ModelProto.FromString(data.replace(old, new))


def sized(tensor: TensorProto, *dims: int) -> None:
    tensor.dims[:] = dims


def outside(tensor: TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


LIES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "larger than its bytes": (lambda: with_weight(lambda t: sized(t, 1 << 31, 4)), "128 of 34,3"),
    "without end": (lambda: with_weight(lambda t: sized(t, 1 << 40, 1 << 40)), "w: 128 of 4,8"),
    "smaller than its bytes": (lambda: with_weight(lambda t: sized(t, 2, 4)), "w: 128 of 32"),
    "below zero": (lambda: with_weight(lambda t: sized(t, -8, 4)), "below zero"),
    "no type": (lambda: with_weight(lambda t: setattr(t, "data_type", 0)), "without a type"),
    "too few in a field": (
        lambda: with_weight(lambda t: (t.ClearField("raw_data"), t.float_data.extend([1, 2]))),
        "w: 2 of 32",
    ),
    "a file of no values": (
        lambda: with_weight(lambda t: (sized(t, 0, 4), outside(t, "data"))),
        "no values",
    ),
    "a name that no file has": (lambda: with_weight(lambda t: outside(t, "a\0b")), "a\0b"),
    "a name too long": (lambda: with_weight(lambda t: outside(t, "n" * 5000)), "nnn"),
    "an input below zero": (
        lambda: with_input(lambda t: setattr(t.shape.dim[1], "dim_value", -8)),
        "x: a dimension below zero",
    ),
    "an input of no type": (
        lambda: with_input(lambda t: setattr(t, "elem_type", 0)),
        "x: a tensor without a type",
    ),
    "a function in itself": (lambda: product(calling("F", "F"), op="F"), "without end"),
    "two in each other": (
        lambda: product(calling("F", "G"), calling("G", "F"), op="F"),
        "without end",
    ),
    "too deep": (lambda: product(*chain(300, 1), op="F0"), "over 100 deep"),
    "a bomb": (lambda: product(*chain(40, 2), op="F0"), "over 1,000,000 nodes"),
    "an attribute of no type": (with_attribute, "an attribute without a type"),
    "an op of no text": (lambda: renamed(b"MatMul", b"MatMu\xff"), "no text, b'MatMu\\xff'"),
    "a value of no text": (lambda: renamed(b"\x01t", b"\x01\xff"), "no text, b'\\xff'"),
    "more inputs than it has": (lambda: product(calling("F"), op="F", inputs=2), "more inputs"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_cannot_be_is_refused(lie: str, tmp_path: Path) -> None:
    file, (make, part) = tmp_path / "m.onnx", LIES[lie]
    file.write_bytes(make().SerializeToString())
    with pytest.raises(SourceError) as caught:
        import_onnx(resolve(str(file), tmp_path), None)
    assert part in str(caught.value.found)
    assert caught.value.where == str(file)


@pytest.mark.parametrize("lie", LIES)
def test_none_is_called_a_bug_by_inspect(
    lie: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(LIES[lie][0]().SerializeToString())
    assert main(["inspect", str(file)]) in (0, 1)
    assert "this is a bug" not in capsys.readouterr().err


def test_a_place_that_is_no_number_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_weight(lambda t: outside(t, "data"))
    model.graph.initializer[0].external_data.add(key="offset", value="here")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    assert "data" in capsys.readouterr().out


def test_an_input_too_large_to_make_up_is_not_checked(tmp_path: Path) -> None:
    model = with_input(lambda t: setattr(t.shape.dim[0], "dim_value", 1 << 40))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    artifact = lc.build(model=str(tmp_path / "m.onnx"), output=tmp_path / "out")
    assert "too large for a check" in artifact.manifest.engines[0]["compared"]["passes"]


def test_functions_and_fields_that_are_right_are_taken(tmp_path: Path) -> None:
    model = product(*chain(3, 2), op="F0")
    halves = np.arange(-16, 16).astype(np.float16).reshape(8, 4)
    fields = helper.make_tensor("h", TensorProto.FLOAT16, (8, 4), halves.flatten().tolist())
    four = helper.make_tensor("q", TensorProto.INT4, (3, 3), [1] * 9)
    words = helper.make_tensor("s", TensorProto.STRING, (2,), [b"a", b""])
    model.graph.initializer.extend([fields, four, words])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert import_onnx(resolve(str(tmp_path / "m.onnx"), tmp_path), None).how == "imported"


def test_an_op_that_does_not_exist_and_makes_nothing(tmp_path: Path) -> None:
    model = product(op="Nothing")
    del model.graph.node[0].output[:]
    model.graph.node[1].input[0] = "x"
    file = tmp_path / "m.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="an op that does not exist") as caught:
        import_onnx(resolve(str(file), tmp_path), None)
    assert caught.value.where == str(file)


def test_a_product_that_does_not_fit_is_the_files_own_mistake(tmp_path: Path) -> None:
    model = product()
    model.graph.input[0].CopyFrom(floats("x", "b", 9))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SourceError, match="onnxruntime does not read the ONNX file") as caught:
        lc.build(model=str(tmp_path / "m.onnx"), output=tmp_path / "out")
    assert caught.value.where == str(tmp_path / "m.onnx")
    assert "MatMul" in (caught.value.found or "")


def test_what_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    model = product()
    model.graph.node.append(node("Relu", ["x"], ["t"]))  # t is made a second time
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SourceError, match="cannot be read") as caught:
        import_onnx(resolve(str(tmp_path / "m.onnx"), tmp_path), None)
    assert "t" in (caught.value.found or "")
    assert "SerdeError" not in (caught.value.found or "")


@pytest.mark.parametrize("length", [10, 200])
def test_a_weight_of_other_bytes_than_its_shape_has(length: int, tmp_path: Path) -> None:
    model = product()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "length":
            entry.value = str(length)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="how many bytes") as caught:
        import_onnx(resolve(str(tmp_path / "m.onnx"), tmp_path), None)
    assert f"{length} bytes" in (caught.value.found or "")
    assert "have 128" in (caught.value.found or "")


def test_a_small_weight_that_is_no_number(tmp_path: Path) -> None:
    """It is read as the graph is written, by a library that raises an error of its own."""
    model = product()
    model.graph.initializer[0].raw_data = np.full((8, 4), np.nan, np.float32).tobytes()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    how: dict[str, Any] = {"check": False, "verify": False, "tactics": "default"}
    with pytest.raises(PassError, match="a weight cannot be stored") as caught:
        lc.build(model=str(tmp_path / "m.onnx"), output=tmp_path / "o", quantize="int8", **how)
    assert "is NaN or infinite" in str(caught.value.found)
