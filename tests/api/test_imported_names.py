"""ONNX files whose inputs are called like those of captured models: names decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton_compile as lc
from lepton_compile.runtime.loader_guard import LoaderError
from tests.plugins.cpu_library import needs_library

RNG = np.random.default_rng(0)
node = helper.make_node
Feeds = dict[str, np.ndarray]
WEIGHTS = {
    "E": RNG.standard_normal((100, 64)).astype(np.float32),
    "W": (RNG.standard_normal((64, 64)) / 8).astype(np.float32),
    "zero": np.array(0, np.int64),
}


def _value(name: str, *shape: Any, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


IDS = _value("input_ids", "b", "s", kind=TensorProto.INT64)
TOKENS = RNG.integers(0, 100, (2, 4))


def _file(folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Path:
    read = {name for each in nodes for name in each.input}
    weights = [numpy_helper.from_array(a, n) for n, a in WEIGHTS.items() if n in read]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def _both(path: Path, feeds: Feeds, **recipe: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """What onnxruntime gives of the file, and the engine that is made of it."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.run(None, feeds)
    made = lc.build({"model": str(path), "check": False, **recipe}, output=path.parent / "out")
    with lc.load(made.path, threads=1) as model:
        found = model.run(feeds)
        said = {each["name"]: each["dtype"] for each in model.manifest["outputs"]}
    assert said == {name: array.dtype.name for name, array in found.items()}
    return list(zip(wanted, found.values(), strict=True))


@needs_library
def test_rows_that_read_each_other_run_together(tmp_path: Path) -> None:
    """Past 256 tokens a thread those of an encoder would run apart."""
    nodes = [
        node("Gather", ["E", "input_ids"], ["e"]),
        node("MatMul", ["e", "W"], ["m"]),
        node("CumSum", ["m", "zero"], ["y"]),
    ]
    path = _file(tmp_path, nodes, [IDS], [_value("y", "b", "s", 64)])
    feeds = {"input_ids": RNG.integers(0, 100, (64, 32))}
    ((wanted, found),) = _both(path, feeds, quantize="int8")
    assert np.abs(wanted - found).max() < 0.05 * np.abs(wanted).max()


@needs_library
def test_tokens_may_have_one_axis(tmp_path: Path) -> None:
    nodes = [node("Gather", ["E", "input_ids"], ["e"]), node("MatMul", ["e", "W"], ["y"])]
    one = _value("input_ids", "n", kind=TensorProto.INT64)
    path = _file(tmp_path, nodes, [one], [_value("y", "n", 64)])
    ((wanted, found),) = _both(path, {"input_ids": np.arange(3)}, quantize="int8")
    assert np.abs(wanted - found).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("gives_keys", [False, True])
def test_a_decoder_that_is_given_what_an_encoder_made_is_not_split(
    gives_keys: bool, tmp_path: Path
) -> None:
    nodes = [
        node("Gather", ["E", "input_ids"], ["q"]),
        node("MatMul", ["encoder_hidden_states", "W"], ["k"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["a"]),
        node("Softmax", ["a"], ["p"], axis=-1),
        node("MatMul", ["p", "k"], ["y"]),
    ]
    outputs = [_value("y", "b", "s", 64), _value("k", "b", "e", 64)]
    inputs = [IDS, _value("encoder_hidden_states", "b", "e", 64)]
    path = _file(tmp_path, nodes, inputs, outputs[: 1 + gives_keys])
    states = RNG.standard_normal((2, 6, 64)).astype(np.float32)
    feeds = {"input_ids": TOKENS, "encoder_hidden_states": states}
    for wanted, found in _both(path, feeds):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert not (tmp_path / "out/engines/ort-cpu/encoder.onnx").exists()


def test_a_text_that_is_read_has_a_length_that_nobody_knows(tmp_path: Path) -> None:
    nodes = [node("Add", ["encoder_input_ids", "input_ids"], ["y"])]
    inputs = [_value("encoder_input_ids", "b", "source", kind=TensorProto.INT64), IDS]
    path = _file(tmp_path, nodes, inputs, [_value("y", "b", "s", kind=TensorProto.INT64)])
    ((wanted, found),) = _both(path, {"encoder_input_ids": TOKENS, "input_ids": TOKENS})
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["batch", "sequence", "source"])
def test_a_range_of_a_dimension_is_none_of_numbers(name: str, tmp_path: Path) -> None:
    path = _file(
        tmp_path, [node("Neg", [name], ["y"])], [_value(name, "n", 8)], [_value("y", "n", 8)]
    )
    numbers = RNG.standard_normal((3, 8)).astype(np.float32)
    ((wanted, found),) = _both(path, {name: numbers})
    np.testing.assert_array_equal(found, wanted)


SUM = [
    node("Cast", ["input_ids"], ["c"], to=TensorProto.FLOAT),
    node("ReduceSum", ["attention_mask"], ["r"], keepdims=0),
    node("Add", ["c", "r"], ["y"]),
]


@pytest.mark.parametrize("shape", [("b", 1, "s", "t"), ("b", "total")])
def test_a_mask_has_the_form_that_the_file_gives_it(shape: Any, tmp_path: Path) -> None:
    mask = _value("attention_mask", *shape)
    path = _file(tmp_path, SUM, [IDS, mask], [_value("y", "b", "s")])
    feeds = {"input_ids": TOKENS}
    feeds["attention_mask"] = np.ones((2, 1, 4, 9) if len(shape) == 4 else (2, 9), np.float32)
    ((wanted, found),) = _both(path, feeds)
    np.testing.assert_array_equal(found, wanted)
    with lc.load(tmp_path / "out") as model, pytest.raises(LoaderError, match="no value for the"):
        model.run({"input_ids": TOKENS})  # all ones would be a guess


K, V = "past_key_values.0.key", "past_key_values.0.value"


def _decoder(folder: Path) -> Path:
    """With attention as the builder of onnxruntime-genai writes it."""
    read, made = (
        ["q", "k", "v", K, V, "lengths", "total"],
        ["a", "present.0.key", "present.0.value"],
    )
    heads = {"num_heads": 4, "kv_num_heads": 4, "domain": "com.microsoft"}
    nodes = [
        node("Gather", ["E", "input_ids"], ["e"]),
        *(node("MatMul", ["e", "W"], [name]) for name in "qkv"),
        node("GroupQueryAttention", read, made, **heads),
        node("MatMul", ["a", "W"], ["logits"]),
    ]
    inputs = [
        IDS,
        *(_value(name, "b", 4, "past", 16) for name in (K, V)),
        _value("lengths", "b", kind=TensorProto.INT32),
        _value("total", 1, kind=TensorProto.INT32),
    ]
    outputs = [_value("logits", "b", "s", 64), *(_value(n, "b", 4, "t", 16) for n in made[1:])]
    return _file(folder, nodes, inputs, outputs)


@needs_library
def test_caches_keep_the_type_that_the_file_gives_them(tmp_path: Path) -> None:
    feeds = {
        "input_ids": np.array([[7]]),
        **{name: RNG.standard_normal((1, 4, 4, 16)).astype(np.float32) for name in (K, V)},
        "lengths": np.array([4], np.int32),
        "total": np.array([5], np.int32),
    }
    for wanted, found in _both(_decoder(tmp_path), feeds, quantize="int8"):
        assert found.dtype == wanted.dtype == np.float32
        assert np.abs(wanted - found).max() < 0.1 * np.abs(wanted).max()
