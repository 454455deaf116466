"""How large keys and values get, seen by running the neutral graph on a sample.

As for linear layers (``calibrate.py``), what goes into a cache becomes an output, is looked at and
dropped, one text of the sample at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body, bodies, sweep
from lepton_passes.quant._ranges import InputRange
from lepton_passes.quant.quantize_cache import caches_in

from .calibrate import complete, further_output, opened

__all__ = ["cache_ranges"]

_PREFIX = "cache-range:"


def cache_ranges(
    model: ir.Model,
    feeds: Sequence[Mapping[str, np.ndarray]],
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, InputRange]:
    """Range of what goes into each cache, by the name of its past.

    Args:
        model: the neutral graph in fp32; not changed.
        feeds: inputs without padding, which would be counted.

    Raises:
        PassError: onnxruntime does not run the graph.
    """
    probed = model.clone()
    names = [name for body in bodies(probed) for name in _probe(body)]
    outputs = [v for node in probed.graph for v in node.outputs if (v.name or "") in names]
    probed.graph.outputs.clear()
    probed.graph.outputs.extend(outputs)
    sweep(probed)
    found = {(v.name or "").removeprefix(_PREFIX): InputRange() for v in outputs}
    if not outputs:
        return found
    with tempfile.TemporaryDirectory(prefix="lepton-cache-") as folder:
        session = opened(probed, Path(folder))
        taken = {i.name: i.shape for i in session.get_inputs()}  # type: ignore[attr-defined]
        for index, feed in enumerate(feeds):
            if progress is not None:
                progress("ranges of the cache", index, len(feeds))
            arrays = session.run(None, complete(feed, taken))  # type: ignore[attr-defined]
            for each, array in zip(found.values(), arrays, strict=True):
                each.see(array)
        del session  # it maps a file of the folder
    return found


def _probe(body: Body) -> list[str]:
    """Hand what goes into caches out of the body; names of the values in the main graph."""
    made: list[str] = []
    for node in body.nodes("CachedAttention"):
        for index, names in caches_in(body, node):
            seen = ir.node("Identity", [node.inputs[index]])
            body.graph.insert_before(node, seen)
            outer = [seen.outputs[0]]
            if body.function is not None:
                body.graph.outputs.append(seen.outputs[0])
                outer = [further_output(call) for call in body.calls]
            for value, name in zip(outer, names, strict=True):
                value.name = f"{_PREFIX}{name}"
                value.type = ir.TensorType(ir.DataType.FLOAT)
                made.append(value.name)
    return made
