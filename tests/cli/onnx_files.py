"""ONNX files for tests of commands, made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "external_model",
    "few_positions_model",
    "large_model",
    "layered_model",
    "quantized_model",
    "tiled_model",
    "worded_model",
]


def _save(graph: onnx.GraphProto, path: Path, domains: dict[str, int], **extra: object) -> Path:
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    onnx.save(helper.make_model(graph, opset_imports=opsets, **extra), path)
    return path


def quantized_model(folder: Path) -> Path:
    """One weight of 4 bits in blocks of 32 with zero points, one of 8 bits per row, one in fp32."""
    packed = numpy_helper.from_array(np.zeros((64, 1, 16), np.uint8), "layers.0.up.weight_q")
    scales = numpy_helper.from_array(np.ones(64, np.float32), "layers.0.up.scales")
    zeros = numpy_helper.from_array(np.zeros((64, 1), np.uint8), "layers.0.up.zeros")
    rows = numpy_helper.from_array(np.zeros((16, 64), np.int8), "layers.1.down.weight_q")
    row_scales = numpy_helper.from_array(np.ones(16, np.float32), "layers.1.down.scale")
    bias = numpy_helper.from_array(np.zeros(16, np.float32), "bias")
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", packed.name, scales.name, zeros.name],
            ["h"],
            domain="com.microsoft",
            K=32,
            N=64,
            bits=4,
            block_size=32,
        ),
        helper.make_node("DequantizeLinear", [rows.name, row_scales.name], ["w"], axis=0),
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "wt"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])
    graph = helper.make_graph(nodes, "g", [x], [y], [packed, scales, zeros, rows, row_scales, bias])
    return _save(graph, folder / "quantized.onnx", {"": 21, "com.microsoft": 1})


def large_model(path: Path, rows: int = 1024) -> Path:
    """A table of 8 bits and one of fp16, each of more bytes than are worth a place of their own."""
    table = numpy_helper.from_array(np.ones((rows, 64), np.int8), "table")
    scales = numpy_helper.from_array(np.ones(rows, np.float32), "scales")
    halves = numpy_helper.from_array(np.ones((rows, 64), np.float16), "halves")
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "scales"], ["whole"], axis=0),
        helper.make_node("Cast", ["halves"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["whole", "wide"], ["sum"]),
        helper.make_node("Gather", ["sum", "ids"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    graph = helper.make_graph(nodes, "g", [ids], [y], [table, scales, halves])
    return _save(graph, path, {"": 21})


def tiled_model(folder: Path) -> Path:
    """Weights in tiles of our kernels: a tied table with offsets, and experts of which one half has
    some."""
    sizes = {"table": (4, 640), "gate_up": (8, 576), "down": (4, 640)}
    weights = [numpy_helper.from_array(np.zeros(s, np.uint8), n) for n, s in sizes.items()]
    four = {"K": 64, "bits": 4, "block_size": 32, "domain": "ai.lepton.cpu"}
    table, halves = {"N": 64, "offsets": 1, **four}, {"offsets": 0, "down_offsets": 1, **four}
    experts = ["y", "chosen", "shares", "gate_up", "down"]
    nodes = [
        helper.make_node("QuantizedEmbedding", ["table", "ids"], ["x"], **table),
        helper.make_node("QuantizedLinear", ["x", "table"], ["y"], **table),
        helper.make_node("QuantizedExperts", experts, ["z"], N=32, **halves),
    ]
    ids, chosen = (
        helper.make_tensor_value_info(n, TensorProto.INT64, ["t", 1]) for n in ("ids", "chosen")
    )
    shares = helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["t", 1])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["t", 64])
    graph = helper.make_graph(nodes, "g", [ids, chosen, shares], [z], weights)
    return _save(graph, folder / "tiled.onnx", {"": 21, "ai.lepton.cpu": 1})


def external_model(folder: Path, size: int = 1 << 40, location: str = "weights.bin") -> Path:
    """A weight of a terabyte in a file that is not there: reading it would fail."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size // 4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    return _save(graph, folder / "external.onnx", {"": 21})


def layered_model(folder: Path, layers: int = 3) -> Path:
    """A layer stored once as a function and called several times, its weight quantized."""
    body = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1, block_size=32),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", 21)]
    function = helper.make_function(
        "ai.lepton.layer", "TinyLayer_0", ["x", "q", "s"], ["y"], body, opsets
    )
    nodes, weights = [], []
    for number in range(layers):
        q = TensorProto(name=f"layers.{number}.q", data_type=TensorProto.INT4, dims=[32, 32])
        q.raw_data = bytes(512)
        scale = numpy_helper.from_array(np.ones((32, 1), np.float32), f"layers.{number}.s")
        weights += [q, scale]
        names = [f"h{number}", q.name, scale.name]
        node = helper.make_node("TinyLayer_0", names, [f"h{number + 1}"], domain="ai.lepton.layer")
        node.name = f"model.layers.{number}"
        nodes.append(node)
    first = helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["batch", 32])
    last = helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, ["batch", 32])
    graph = helper.make_graph(nodes, "g", [first], [last], weights)
    domains = {"": 21, "ai.lepton.layer": 1}
    return _save(graph, folder / "layered.onnx", domains, functions=[function])


def few_positions_model(folder: Path, positions: int = 20) -> Path:
    """Ids to rows of a table, with a table of so many positions added, which no shape tells."""
    tables = {"words": np.ones((64, 8)), "places": np.ones((positions, 8))}
    weights = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in tables.items()]
    weights.append(numpy_helper.from_array(np.int64([0]), "zero"))
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["h"]),
        helper.make_node("Shape", ["input_ids"], ["count"], start=1),
        helper.make_node("Slice", ["places", "zero", "count", "zero"], ["p"]),
        helper.make_node("Add", ["h", "p"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 8])
    graph = helper.make_graph(nodes, "g", [ids], [y], weights)
    return _save(graph, folder / "few.onnx", {"": 18})


def worded_model(folder: Path) -> Path:
    """Ids to words, and whether they are the first."""
    words = helper.make_tensor("words", TensorProto.STRING, [3], [b"a", b"[/b]", "größe".encode()])
    zero = numpy_helper.from_array(np.int64([0]), "zero")
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["word"]),
        helper.make_node("Equal", ["ids", "zero"], ["first"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    word = helper.make_tensor_value_info("word", TensorProto.STRING, ["n"])
    first = helper.make_tensor_value_info("first", TensorProto.BOOL, ["n"])
    graph = helper.make_graph(nodes, "g", [ids], [word, first], [words, zero])
    return _save(graph, folder / "worded.onnx", {"": 21})
