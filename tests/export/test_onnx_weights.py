"""Weights that an ONNX file has quantized: the same numbers, and none is made in each call."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import lepton_compile as lc
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import resolve
from lepton_passes.lowering.ort.legal_ort_cpu import LARGE

IN, OUT = 320, 256  # more numbers than legal-ort-cpu lets be dequantized in each call
assert IN * OUT > LARGE
FP32 = 1e-5
# Kernels of blocks of 4 bits round what they multiply to 8 bits.
BLOCKS = 0.02
KINDS = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
KINDS |= {"int4": TensorProto.INT4, "uint4": TensorProto.UINT4}
LEVELS = {"int8": (-127, 128), "uint8": (0, 256), "int4": (-8, 8), "uint4": (0, 16)}


def quantized(
    kind: str, shape: tuple[int, ...], of_scales: tuple[int, ...], *, zero: bool
) -> tuple[list[Any], list[str]]:
    """Initializers of a weight, and their names."""
    random, dtype = np.random.default_rng(0), np.dtype(getattr(ml_dtypes, kind, kind))
    codes = random.integers(*LEVELS[kind], shape)
    scale = (random.random(of_scales) * 0.01 + 0.001).astype(np.float32)
    arrays = {"w": codes.astype(dtype), "w_scale": scale}
    if zero:
        arrays["w_zero"] = random.integers(*LEVELS[kind], of_scales).astype(dtype)
    made = [_tensor(name, array, kind) for name, array in arrays.items()]
    return made, [*arrays]


def _tensor(name: str, array: np.ndarray, kind: str) -> Any:
    if array.dtype == np.float32:
        return onnx.numpy_helper.from_array(array, name)
    return helper.make_tensor(name, KINDS[kind], array.shape, array.astype(np.int32).ravel())


def saved(path: Path, nodes: list[Any], weights: list[Any], shape: list[Any]) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def relative_error(
    path: Path, out: Path, shape: tuple[int, ...], *, optimized: bool = False
) -> float:
    """Of an engine that is built as the file is, from the file in onnxruntime."""
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    options = ort.SessionOptions()
    if not optimized:  # it has kernels of its own for some of these, which round what they multiply
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": x})
    made = lc.build(model=str(path), output=out, tactics="default", verify=False).path
    with lc.load(made, threads=1) as model:
        found = model.run({"x": x})["y"]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def ops(path: Path) -> Counter[str]:
    graph = onnx.load(path / "engines/ort-cpu/model.onnx", load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize(
    ("kind", "of_scales", "block", "zero", "kept"),
    [
        ("int8", (OUT,), 0, False, True),
        ("int8", (), 0, False, True),
        ("int8", (OUT,), 0, True, False),
        ("uint8", (), 0, True, False),
        ("int8", (IN // 32, OUT), 32, False, True),
        ("int4", (IN // 32, OUT), 32, False, True),
        ("uint4", (IN // 64, OUT), 64, True, True),
        ("int4", (IN // 128 + 1, OUT), 128, False, False),  # the last block is shorter
    ],
)
def test_a_linear_layer(
    kind: str, of_scales: tuple[int, ...], block: int, zero: bool, kept: bool, tmp_path: Path
) -> None:
    weights, names = quantized(kind, (IN, OUT), of_scales, zero=zero)
    how = {"axis": 0, "block_size": block} if block else {"axis": 1}
    nodes = [
        helper.make_node("DequantizeLinear", names, ["whole"], **how),
        helper.make_node("MatMul", ["x", "whole"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, weights, ["rows", IN])
    error = relative_error(path, tmp_path / "out", (5, IN))
    assert error <= (BLOCKS if kept else FP32)
    found = ops(tmp_path / "out")
    assert found["DequantizeLinear"] == 0
    assert found["MatMulNBits"] + found["DynamicQuantizeMatMul"] == int(kept)
    graph = import_onnx(resolve(str(path), tmp_path), None).model.graph
    stored = {str(v.const_value.dtype) for v in graph.initializers.values() if v.const_value}
    assert (kind.upper() in stored) == kept
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["engines"][0]["precision"] == (kind.removeprefix("u") if kept else "fp32")


@pytest.mark.parametrize(
    ("op", "shape", "axis", "given"),
    [
        ("Conv", (64, 32, 6, 6), 0, (2, 32, 8, 8)),
        ("Gemm", (OUT, IN), 0, (5, IN)),
        ("MatMul", (3, 160, 200), 2, (3, 4, 160)),
    ],
)
def test_other_ops_read_what_it_stands_for(
    op: str, shape: tuple[int, ...], axis: int, given: tuple[int, ...], tmp_path: Path
) -> None:
    weights, names = quantized("int8", shape, (shape[axis],), zero=True)
    how = {"transB": 1} if op == "Gemm" else {}
    nodes = [
        helper.make_node("DequantizeLinear", names, ["whole"], axis=axis),
        helper.make_node(op, ["x", "whole"], ["y"], **how),
    ]
    path = saved(tmp_path / "m.onnx", nodes, weights, ["rows", *given[1:]])
    assert relative_error(path, tmp_path / "out", given) <= FP32
    assert ops(tmp_path / "out")["DequantizeLinear"] == 0


@pytest.mark.parametrize(
    ("kind", "of_scales", "how"),
    [
        ("int8", (IN,), {"axis": 0}),
        ("int8", (IN // 32, OUT), {"axis": 0, "block_size": 32}),
        ("int4", (OUT,), {"axis": 1}),
    ],
)
def test_what_no_kernel_has_in_integers_does_not_stay(
    kind: str, of_scales: tuple[int, ...], how: dict[str, int], tmp_path: Path
) -> None:
    """onnxruntime took the first two into a kernel that refused them when it ran, and dequantized
    the last in each call."""
    weights, names = quantized(kind, (IN, OUT), of_scales, zero=False)
    weights.append(onnx.numpy_helper.from_array(np.float32(0.03), "x_scale"))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale"], ["x_d"]),
        helper.make_node("DequantizeLinear", names, ["whole"], **how),
        helper.make_node("MatMul", ["x_d", "whole"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, weights, ["rows", IN])
    assert relative_error(path, tmp_path / "out", (5, IN)) <= BLOCKS
    assert ops(tmp_path / "out")["DequantizeLinear"] == 1  # that of x


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_computes_in_integers_stays(per_channel: bool, tmp_path: Path) -> None:
    """As onnxruntime's own tools write it: both sides of each layer are rounded."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    random = np.random.default_rng(2)

    class Sample(CalibrationDataReader):
        left = 3

        def get_next(self) -> Any:
            self.left -= 1
            x = random.standard_normal((8, IN)).astype(np.float32)
            return {"x": x} if self.left >= 0 else None

    weights = [
        onnx.numpy_helper.from_array(random.standard_normal(s).astype(np.float32) / 16, name)
        for name, s in (("up", (IN, OUT)), ("bias", (OUT,)), ("down", (OUT, IN)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "down"], ["y"]),
    ]
    plain = saved(tmp_path / "plain.onnx", nodes, weights, ["rows", IN])
    path = tmp_path / "m.onnx"
    how = {"quant_format": QuantFormat.QDQ, "per_channel": per_channel}
    quantize_static(plain, path, Sample(), **how)
    assert relative_error(path, tmp_path / "out", (5, IN), optimized=True) <= FP32
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["engines"][0]["precision"] == "static-int8"
    assert ops(tmp_path / "out")["QuantizeLinear"] > 1
    stored = sum(file.stat().st_size for file in (tmp_path / "out/engines/ort-cpu").iterdir())
    assert stored < 1.3 * 2 * IN * OUT  # a byte for each weight
