"""Our kernel for mixtures of experts beside QMoE of onnxruntime: one layer of published shapes.

    python scripts/bench/experts.py --json out.json
    python scripts/bench/experts.py --only qwen3-30b-a3b --experts 16

Weights are random and in groups of 32 columns; speed does not depend on them. Both sessions run the
layer as the passes of a build lower it, and have their turns in each round. Each token chooses its
experts at random, which spreads a prompt over all of them, as a router is trained to.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from outcome import tell, where

from lepton_compile.engines.model_file import flatten
from lepton_passes.contract import LeptonPass
from lepton_passes.linear import dequantizing
from lepton_passes.lowering.ort.experts import LowerExperts
from lepton_passes.lowering.ort.native_experts import LowerNativeExperts
from lepton_plugins.native import LIBRARY, build_library
from lepton_plugins.toolchain.store import cache_folder

GROUP = 32
TOKENS = (1, 16, 128, 512)
PACKAGES = ("onnxruntime", "numpy", "lepton-compile")
KERNELS: dict[str, Callable[[], LeptonPass]] = {"ours": LowerNativeExperts, "QMoE": LowerExperts}


@dataclass(frozen=True)
class Shape:
    """A mixture, as the configuration of a released model says."""

    width: int
    inner: int
    experts: int
    chosen: int
    alpha: float = 1.0
    beta: float = 0.0
    limit: float = 0.0
    interleaved: int = 0
    biases: bool = False


SHAPES = {
    "qwen3-30b-a3b": Shape(2048, 768, 128, 8),
    "olmoe-1b-7b": Shape(2048, 1024, 64, 8),
    "gpt-oss-20b": Shape(2880, 2880, 32, 4, 1.702, 1.0, 7.0, 1, biases=True),
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--bits", nargs="+", type=int, choices=(4, 8), default=(4, 8))
    parser.add_argument("--experts", type=int, help="fewer of them, to try it out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def layer(shape: Shape, bits: int) -> ir.Model:
    """The layer alone, as the passes in front of a lowering leave it."""
    x = _input("x", ir.DataType.FLOAT, shape.width)
    indices = _input("indices", ir.DataType.INT64, shape.chosen)
    shares = _input("shares", ir.DataType.FLOAT, shape.chosen)
    tensors = {
        **_weight("gate_up", shape.experts * 2 * shape.inner, shape.width, bits),
        **_weight("down", shape.experts * shape.width, shape.inner, bits),
    }
    if shape.biases:
        for name, columns in (("bias_1", 2 * shape.inner), ("bias_2", shape.width)):
            tensors[name] = np.zeros((shape.experts, columns), np.float32)
    values = {name: _initializer(name, tensor) for name, tensor in tensors.items()}
    nodes = [
        ir.node("DequantizeLinear", [values[f"{n}_q"], values[f"{n}_scale"]], dequantizing(GROUP))
        for n in ("gate_up", "down")
    ]
    attributes = {
        "experts": shape.experts,
        "chosen": shape.chosen,
        "interleaved": shape.interleaved,
        "alpha": shape.alpha,
        "beta": shape.beta,
        "limit": shape.limit,
        "activation": "swish",
        "gated": 1,
    }
    read = [x, indices, shares, *(node.outputs[0] for node in nodes)]
    read += [values[name] for name in ("bias_1", "bias_2") if name in values]
    mixture = ir.node("Experts", read, attributes, domain="ai.lepton")
    y = mixture.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["t", shape.width])
    opsets = {"": 24, "ai.lepton": 1, "com.microsoft": 1}
    graph = ir.Graph(
        [x, indices, shares],
        [y],
        nodes=[*nodes, mixture],
        initializers=tuple(values.values()),
        opset_imports=opsets,
        name="layer",
    )
    return ir.Model(graph, ir_version=11)


def _weight(name: str, rows: int, columns: int, bits: int) -> dict[str, np.ndarray]:
    most, dtype = (7, ml_dtypes.int4) if bits == 4 else (127, np.int8)
    drawn = np.random.default_rng(0).integers(-most, most + 1, 65537).astype(np.int8)
    scale = np.full((rows, columns // GROUP), 1 / (most * columns**0.5), np.float32)
    return {f"{name}_q": np.resize(drawn, (rows, columns)).astype(dtype), f"{name}_scale": scale}


def _input(name: str, dtype: ir.DataType, columns: int) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(["t", columns]))


def _initializer(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array)
    kind = ir.TensorType(tensor.dtype)
    return ir.Value(name=name, type=kind, shape=ir.Shape(array.shape), const_value=tensor)


def opened(shape: Shape, bits: int, lowering: LeptonPass, folder: Path, threads: int) -> Any:
    """A session of the lowered layer."""
    model = layer(shape, bits)
    lowering(model)
    if lowering.refusals or lowering.fired != 1:
        raise RuntimeError(f"{lowering.name} did not take it: {lowering.refusals}")
    flatten(model)
    ir.save(model, folder / "layer.onnx", external_data="weights.bin")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(folder / LIBRARY))
    return ort.InferenceSession(folder / "layer.onnx", options, providers=["CPUExecutionProvider"])


def feeds(shape: Shape, tokens: int) -> dict[str, np.ndarray]:
    """Tokens, and whom they choose."""
    draw = np.random.default_rng(tokens)
    choices = [draw.permutation(shape.experts)[: shape.chosen] for _ in range(tokens)]
    return {
        "x": draw.standard_normal((tokens, shape.width)).astype(np.float32),
        "indices": np.stack(choices).astype(np.int64),
        "shares": np.full((tokens, shape.chosen), 1 / shape.chosen, np.float32),
    }


def timed(session: Any, given: dict[str, np.ndarray], seconds: float = 0.3) -> float:
    """Milliseconds of a call: the mean of as many as fit."""
    session.run(None, given)
    started, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or calls < 2:
        session.run(None, given)
        calls += 1
    return 1e3 * passed / calls


def measured(shape: Shape, bits: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of both kernels, by number of tokens, and how far apart their results are."""
    with TemporaryDirectory() as scratch:
        sessions = {}
        for name, make in KERNELS.items():
            folder = Path(scratch) / name
            folder.mkdir()
            (folder / LIBRARY).write_bytes(build_library(cache_folder()))
            sessions[name] = opened(shape, bits, make(), folder, asked.threads)
    found = []
    for tokens in TOKENS:
        given = feeds(shape, tokens)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(asked.rounds):
            for name, session in sessions.items():
                times[name].append(timed(session, given))
        ours, theirs = (session.run(None, given)[0] for session in sessions.values())
        medians = {name: statistics.median(each) for name, each in times.items()}
        found.append(
            {
                "tokens": tokens,
                "ms": {name: round(each, 3) for name, each in medians.items()},
                "QMoE_over_ours": round(medians["QMoE"] / medians["ours"], 2),
                "difference": float(np.abs(ours - theirs).max() / np.ptp(theirs)),
            }
        )
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    asked = arguments(given)
    results = {}
    for name in asked.only:
        shape = SHAPES[name]
        if asked.experts is not None:
            shape = Shape(**{**vars(shape), "experts": asked.experts})
        results[name] = {
            "shape": vars(shape),
            **{f"int{bits}": measured(shape, bits, asked) for bits in asked.bits},
        }
    found = where(PACKAGES)
    found["machine"]["threads"] = asked.threads
    tell({**found, "layers": results}, asked.json)


if __name__ == "__main__":
    main()
