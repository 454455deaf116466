"""Where a pass moved the numbers: the first value of the main graph that differs.

The main graph has a node for each layer, and passes keep the names of what goes from one to the
next; so both graphs, before and after, are run again with all of these as outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["first_moved"]


def first_moved(
    before: bytes,
    after: bytes,
    run: Callable[[bytes], Mapping[str, np.ndarray]],
    moved: Callable[[np.ndarray, np.ndarray], bool],
) -> str | None:
    """The node whose output is the first to differ, as ``name (op)``.

    Args:
        before, after: the graphs, serialized.
        run: outputs of a graph by name; those that are left out are not looked at.
        moved: whether an output, before and after, differs.

    Returns:
        ``None`` where no value that both graphs have in one shape differs.
    """
    import onnx

    graphs = [onnx.ModelProto.FromString(data) for data in (before, after)]
    makers = {name: node for node in graphs[1].graph.node for name in node.output if name}
    shared = {name for node in graphs[0].graph.node for name in node.output} & makers.keys()
    old, new = (run(_with_outputs(graph, shared)) for graph in graphs)
    for name, node in makers.items():
        if name not in old or old[name].shape != new[name].shape:
            continue
        if old[name].dtype.kind == "f" and moved(old[name], new[name]):
            return f"{node.name or name} ({node.op_type})"
    return None


def _with_outputs(model: onnx.ModelProto, names: set[str]) -> bytes:
    import onnx

    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    return bytes(model.SerializeToString())
