"""Whether onnxruntime can tell the sizes of what a Scan goes over.

It opens an engine without them, and then refuses each call. Of its own ops it infers them, of ours
it cannot: the graph has to say them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from lepton_compile.errors import EngineError
from lepton_passes.body import branches
from lepton_passes.origin import from_file
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["check_steps"]


def check_steps(model: ir.Model) -> None:
    """Refuse a graph of a file in which they get lost.

    Raises:
        EngineError: a Scan of unknown sizes reads what a kernel of our own makes.
    """
    nodes = ir.traversal.RecursiveGraphIterator(model.graph) if from_file(model) else ()
    for node in (each for each in nodes if each.op_type == "Scan" and not each.domain):
        ends = [value for body in branches(node) for value in body.outputs]
        made = next(_ours(node.inputs), None)
        if made is not None and any(value.shape is None for value in ends):
            raise EngineError(
                "onnxruntime cannot tell the sizes of what a Scan reads behind our own kernels",
                where=node.name or ends[0].name,
                found=f"{made.name}, of a size that the graph does not say",
                available=["kernels: builtin", "sizes in the file: onnx.shape_inference"],
                hint="build with kernels: builtin, or write the sizes into the file",
            )


def _ours(values: Iterable[ir.Value | None]) -> Iterator[ir.Value]:
    """Values of unknown size that our kernels make, and these are made of."""
    waiting, seen = [value for value in values if value is not None], set[ir.Value]()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen or value.shape is not None or node is None:
            continue
        seen.add(value)
        if node.domain == CPU_DOMAIN:
            yield value
        waiting += [given for given in node.inputs if given is not None]
