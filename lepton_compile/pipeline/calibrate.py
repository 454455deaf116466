"""Ranges of what linear layers read, seen by running the neutral graph on a sample.

The graph runs in fp32 on plain onnxruntime, with its weights mapped from a scratch file; every
input of a linear layer becomes an output, is counted and dropped, one text of the sample at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import PassError
from lepton_passes.body import bodies, sweep
from lepton_passes.linear import Linear, linears
from lepton_passes.quant._calibration import parameters_of
from lepton_passes.quant._ranges import InputRange

from .scratch import ScratchWeights

__all__ = ["calibrate"]

_PREFIX = "calibrate:"


def calibrate(
    model: ir.Model,
    feeds: Sequence[Mapping[str, np.ndarray]],
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, InputRange]:
    """Run ``model`` on each of ``feeds``.

    Args:
        model: the neutral graph in fp32; not changed.
        feeds: inputs without padding, which would be counted; caches are left out, they start
            empty.

    Returns:
        Range of the input of each linear layer, by the name of the layer's weight.

    Raises:
        PassError: onnxruntime does not run the graph.
    """
    probed, readers = _probed(model)
    ranges = {output: InputRange() for output in readers}
    with tempfile.TemporaryDirectory(prefix="lepton-calibrate-") as folder:
        session = _session(probed, Path(folder))
        wanted = {i.name: i.shape for i in session.get_inputs()}  # type: ignore[attr-defined]
        for index, feed in enumerate(feeds):
            if progress is not None:
                progress("calibrating", index, len(feeds))
            found = session.run(list(ranges), _complete(feed, wanted))  # type: ignore[attr-defined]
            for seen, array in zip(ranges.values(), found, strict=True):
                seen.see(array)
        del session  # it maps a file of the folder
    if progress is not None:
        progress("calibrated", len(feeds), len(feeds))
    return {name: ranges[output] for output, names in readers.items() for name in names}


def _probed(model: ir.Model) -> tuple[ir.Model, dict[str, list[str]]]:
    """A copy whose outputs are the inputs of linear layers, and the weights that read each."""
    copy = model.clone()
    readers: dict[str, list[str]] = {}
    outputs: list[ir.Value] = []
    for body in bodies(copy):
        by_input: dict[ir.Value, list[Linear]] = {}
        for linear in linears(body):
            by_input.setdefault(linear.x, []).append(linear)
        for x, users in by_input.items():
            seen = ir.node("Identity", [x])
            body.graph.insert_before(users[0].node, seen)
            made = [seen.outputs[0]]
            if body.function is not None:
                body.graph.outputs.append(seen.outputs[0])
                made = [_further_output(call) for call in body.calls]
            for index, value in enumerate(made):
                value.name = f"{_PREFIX}{len(outputs)}"
                value.type = ir.TensorType(ir.DataType.FLOAT)
                outputs.append(value)
                readers[value.name] = [parameters_of(body, user)[index] for user in users]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    sweep(copy)  # the head, and what else only the old outputs needed
    return copy, readers


def _further_output(call: ir.Node) -> ir.Value:
    call.resize_outputs(len(call.outputs) + 1)
    return call.outputs[-1]


def _session(model: ir.Model, folder: Path) -> object:
    import onnxruntime as ort

    weights = ScratchWeights(folder / "weights.bin")
    path = folder / "model.onnx"
    path.write_bytes(weights.externalized(model))
    weights.close()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, all of them RuntimeErrors
        raise PassError("the graph to calibrate does not run", found=str(error)) from error


def _complete(
    feed: Mapping[str, np.ndarray], wanted: Mapping[str, Sequence[object]]
) -> dict[str, np.ndarray]:
    """The feed with empty caches, and without inputs that nothing needs."""
    batch = len(next(iter(feed.values())))
    full = {name: array for name, array in feed.items() if name in wanted}
    for name, shape in wanted.items():
        if name.startswith("past_key_values."):
            heads, width = cast("int", shape[1]), cast("int", shape[3])
            full[name] = np.zeros((batch, heads, 0, width), np.float32)
    return full
