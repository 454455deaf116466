"""How large keys and values get, seen by running the neutral graph on a sample.

As for linear layers (``calibrate.py``), what goes into a cache becomes an output, is looked at and
dropped, one text of the sample at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from lepton_compile.progress import Step
from lepton_passes.body import DIALECT, Body, bodies, sweep
from lepton_passes.quant.quantize_cache import caches_in
from lepton_passes.quant.ranges import InputRange

from .calibrate import handed_out, show

__all__ = ["cache_ranges"]

_PREFIX = "cache-range:"


def cache_ranges(
    model: ir.Model,
    feeds: Sequence[Mapping[str, np.ndarray]],
    progress: Step | None = None,
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
    ranges = {v.name or "": InputRange() for v in outputs}
    if outputs:
        show(probed, ranges, feeds, "ranges of the cache", progress)
    return {name.removeprefix(_PREFIX): each for name, each in ranges.items()}


def _probe(body: Body) -> list[str]:
    """Hand what goes into caches out of the body; names of the values in the main graph."""
    made: list[str] = []
    for node in body.nodes("CachedAttention", domain=DIALECT):
        for index, names in caches_in(body, node):
            for value, name in zip(handed_out(body, node.inputs[index], node), names, strict=True):
                value.name = f"{_PREFIX}{name}"
                made.append(value.name)
    return made
