"""What linear layers read, seen by running the neutral graph on a sample.

The graph runs in fp32 on plain onnxruntime, with its weights mapped from a scratch file; every
input of a linear layer becomes an output, is shown to an observer of its own (ranges for
activations, sums of products for GPTQ) and dropped, one text of the sample at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import PassError
from lepton_compile.progress import Step
from lepton_compile.scratch import give_back_freed, on_scratch_disk
from lepton_passes.body import Body, bodies, sweep
from lepton_passes.linear import linears_by_input
from lepton_passes.quant.calibration import parameters_of
from lepton_passes.quant.ranges import InputRange
from lepton_plugins.workroom import Workroom

from .empty_past import with_empty_past
from .lean_graph import lean
from .plain_session import plain_options
from .scratch import ScratchWeights

__all__ = [
    "Observer",
    "calibrate",
    "handed_out",
    "inputs_of",
    "observe",
    "show",
]

_PREFIX = "calibrate:"


class Observer(Protocol):
    """Sees the input of one layer, as often as the sample has texts."""

    def see(self, rows: np.ndarray) -> None:
        """Take note of ``rows`` (..., width), fp32; they are gone afterwards."""


Seen = TypeVar("Seen", bound=Observer)


def calibrate(
    model: ir.Model,
    feeds: Sequence[Mapping[str, np.ndarray]],
    progress: Step | None = None,
) -> dict[str, InputRange]:
    """Ranges of what linear layers read; arguments and errors as of ``observe``."""
    return observe(model, feeds, InputRange, progress=progress)


def observe(
    model: ir.Model,
    feeds: Sequence[Mapping[str, np.ndarray]],
    make: Callable[[], Seen],
    *,
    wanted: Container[str] | None = None,
    progress: Step | None = None,
) -> dict[str, Seen]:
    """Run ``model`` on each of ``feeds``.

    Args:
        model: the neutral graph in fp32; not changed.
        feeds: inputs without padding, which would be counted; caches are left out, they start
            empty.
        make: an observer that has seen nothing.
        wanted: names of weights; what others read is not looked at. Left out, all.

    Returns:
        Observer of the input of each linear layer, by the name of the layer's weight. Layers that
        read the same have the same one.

    Raises:
        PassError: onnxruntime does not run the graph.
    """
    probed, readers = _probed(model, wanted)
    observers = {output: make() for output in readers}
    show(probed, observers, feeds, "calibrating", progress)
    if progress is not None:
        progress("calibrated", len(feeds), len(feeds))
    return {name: observers[output] for output, names in readers.items() for name in names}


def show(
    model: ir.Model,
    observers: Mapping[str, Observer],
    feeds: Sequence[Mapping[str, np.ndarray]],
    what: str,
    progress: Step | None = None,
) -> None:
    """Run ``model`` on each of ``feeds``; observers by the name of the output that each sees.

    Raises:
        PassError: onnxruntime does not run the graph.
    """
    with Workroom("calibrate") as folder:
        session = _opened(model, Path(folder))
        taken = {i.name: i.shape for i in session.get_inputs()}  # type: ignore[attr-defined]
        for index, feed in enumerate(feeds):
            if progress is not None:
                progress(what, index, len(feeds))
            found = session.run(list(observers), with_empty_past(feed, taken))  # type: ignore[attr-defined]
            for each, array in zip(observers.values(), found, strict=True):
                each.see(array)
        del session  # it maps a file of the folder


def inputs_of(model: ir.Model) -> list[tuple[int, tuple[str, ...]]]:
    """Width of each input of linear layers, and the names of the weights that read it; those of a
    layer stand together, in the order of its weights in the graph."""
    place = {name: index for index, name in enumerate(model.graph.initializers)}
    found = [
        (users[0].weight.columns, names)
        for body in bodies(model)
        for users in linears_by_input(body).values()
        for names in zip(*(parameters_of(body, user) for user in users), strict=True)
    ]
    return sorted(found, key=lambda each: min(place.get(name, len(place)) for name in each[1]))


def _probed(
    model: ir.Model, wanted: Container[str] | None
) -> tuple[ir.Model, dict[str, list[str]]]:
    """A copy whose outputs are the inputs of linear layers, and the weights that read each."""
    copy = model.clone()
    readers: dict[str, list[str]] = {}
    outputs: list[ir.Value] = []
    count = 0
    for body in bodies(copy):
        for x, users in linears_by_input(body).items():
            names = list(zip(*(parameters_of(body, user) for user in users), strict=True))
            made = handed_out(body, x, users[0].node)
            for value, readers_of in zip(made, names, strict=True):
                value.name = f"{_PREFIX}{count}"  # also where nobody looks: a call has all outputs
                count += 1
                if wanted is None or any(name in wanted for name in readers_of):
                    outputs.append(value)
                    readers[value.name] = list(readers_of)
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    sweep(copy)  # the head, and what else only the old outputs needed
    return copy, readers


def handed_out(body: Body, value: ir.Value | None, before: ir.Node) -> list[ir.Value]:
    """A value of the body, fp32, as values of the main graph: one a call, still without names."""
    seen = ir.node("Identity", [value])
    body.graph.insert_before(before, seen)
    made = [seen.outputs[0]]
    if body.function is not None:
        body.graph.outputs.append(seen.outputs[0])
        made = [_further_output(call) for call in body.calls]
    for each in made:
        each.type = ir.TensorType(ir.DataType.FLOAT)
    return made


def _further_output(call: ir.Node) -> ir.Value:
    call.resize_outputs(len(call.outputs) + 1)
    return call.outputs[-1]


def _opened(model: ir.Model, folder: Path) -> object:
    """A session of plain onnxruntime on the graph, its files in ``folder``."""
    import onnxruntime as ort

    path = folder / "model.onnx"
    with on_scratch_disk():
        weights = ScratchWeights(folder / "weights.bin")
        path.write_bytes(weights.externalized(lean(model)))
        weights.close()
    give_back_freed()
    try:
        return ort.InferenceSession(str(path), plain_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, all of them RuntimeErrors
        raise PassError("the graph to calibrate does not run", found=str(error)) from error
