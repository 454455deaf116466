"""Sizes that an ONNX file leaves open, and does not name: each is one of its own.

    Before   float[,, 4] x                 float[?, ?] y              -1, None and "" likewise
    After    float[x.0, x.1, 4] x          float[y.0, y.1] y

And those that can be told of it. The body of a Scan has to know its sizes, or onnxruntime does not
run it, and behind our own kernels onnxruntime can tell none.

What is called alike is of one size for passes and loaders, and nothing says that of these. Between
the interface and its nodes such a size has no name, which is what passes know as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

import onnx_ir as ir

__all__ = ["infer_sizes", "name_sizes"]

NAMELESS = ("None", "unknown")
_LETTER = re.compile(r"[^\W\d]")


def infer_sizes(model: ir.Model) -> None:
    """Note the sizes of all values, where a Scan may need them."""
    from onnx_ir.passes.common import ShapeInferencePass

    if any(node.op_type == "Scan" for node in ir.traversal.RecursiveGraphIterator(model.graph)):
        ShapeInferencePass()(model)


def name_sizes(model: ir.Model) -> None:
    """Give each open size of inputs and outputs a name; others lose what is none."""
    ends = [*model.graph.inputs, *model.graph.outputs]
    taken = {str(size.value) for value in _values(model) for size in _open(value)}
    outside = set(ends)
    for value in _values(model):
        if value not in outside and any(map(_nameless, _open(value))):
            value.shape = ir.Shape(
                [None if _nameless(size) else size for size in value.shape or ()]
            )
    for value in ends:
        if any(map(_nameless, _open(value))):
            value.shape = ir.Shape(
                [
                    _free(f"{value.name}.{axis}", taken) if _nameless(size) else size
                    for axis, size in enumerate(value.shape or ())
                ]
            )


def _free(name: str, taken: set[str]) -> str:
    found = next(each for each in _numbered(name) if each not in taken)
    taken.add(found)
    return found


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}.{number}" for number in count(1))


def _open(value: ir.Value) -> list[ir.SymbolicDim]:
    return [size for size in value.shape or () if isinstance(size, ir.SymbolicDim)]


def _nameless(size: int | ir.SymbolicDim) -> bool:
    if isinstance(size, int):
        return False
    name = size.value
    return name is None or name in NAMELESS or _LETTER.search(name) is None


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """All that a model has, in branches and functions, too."""
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for body in bodies:
        yield from body.inputs
        for node in ir.traversal.RecursiveGraphIterator(body):
            yield from node.outputs
        for graph in body.subgraphs():
            yield from graph.inputs
