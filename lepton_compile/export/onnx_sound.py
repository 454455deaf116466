"""Whether what an ONNX file says of itself can be: sizes, types, and how its functions call.

The checker of ``onnx`` is shown no large weight, and does not look at how much inlining would make
of a few functions. What it lets pass would end in an error of a library, or in no end at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from lepton_compile.errors import SourceError

from .external import tensors_of

__all__ = ["check_sound"]

NODES = 1_000_000  # of all functions inlined; a model of a hundred layers has some ten thousand
DEPTH = 100  # of functions that call functions
FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def check_sound(model: ir.Model, path: Path) -> None:
    """Refuse what no model can be.

    Raises:
        SourceError: a name that is no text, a weight without a type or of another size than its
            bytes, a dimension below zero, or functions that call each other without end, or almost.
    """
    strange = next((name for name in _names(model) if not isinstance(name, str | None)), None)
    if strange is not None:
        raise _unsound(path, f"a name that is no text, {strange!r:.60}")
    for tensor in tensors_of(model):
        if why := _unlike_its_bytes(tensor):
            raise _unsound(path, f"{tensor.name or 'a constant'}: {why}")
    for value in (*model.graph.inputs, *model.graph.outputs):
        sizes = [] if value.shape is None else list(value.shape)
        if any(isinstance(size, int) and size < 0 for size in sizes):
            raise _unsound(path, f"{value.name}: a dimension below zero, {value.shape}")
        if value.dtype == ir.DataType.UNDEFINED:
            raise _unsound(path, f"{value.name}: a tensor without a type")
    made: dict[ir.OperatorIdentifier, int] = {}
    if _inlined(model, model.graph, made, path, 0) > NODES:
        raise _unsound(path, f"functions that would be over {NODES:,} nodes when they are inlined")


def _names(model: ir.Model) -> Iterator[object]:
    """What things are called: protobuf gives bytes for what is no UTF-8."""
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for body in bodies:
        yield body.name
        yield from (value.name for value in (*body.inputs, *body.outputs))
        for node in ir.traversal.RecursiveGraphIterator(body):
            yield from (node.domain, node.op_type, node.name, *node.attributes)
            yield from (value.name for value in (*node.inputs, *node.outputs) if value is not None)
    yield from model.graph.initializers


def _unlike_its_bytes(tensor: ir.TensorProtocol) -> str | None:
    """What is wrong with it, where something is."""
    if tensor.dtype == ir.DataType.UNDEFINED:
        return "a tensor without a type"
    if any(isinstance(size, int) and size < 0 for size in tensor.shape):
        return f"a dimension below zero, {tensor.shape}"
    if isinstance(tensor, ir.ExternalTensor):
        return None if tensor.size else "no values, and a file that holds them"
    proto = getattr(tensor, "raw", None)
    if proto is None or not hasattr(proto, "raw_data"):
        return None
    held, wanted = len(proto.raw_data), tensor.nbytes
    if not held:
        held, wanted = sum(len(getattr(proto, name)) for name in FIELDS), _items(tensor)
    return f"{held:,} of {wanted:,} values or bytes" if held != wanted else None


def _items(tensor: ir.TensorProtocol) -> int:
    """How many numbers a field of its own type has."""
    if tensor.dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * tensor.size
    if tensor.dtype != ir.DataType.STRING and tensor.dtype.bitwidth < 8:
        return int(tensor.nbytes)
    return int(tensor.size)


def _inlined(
    model: ir.Model,
    body: ir.Graph | ir.Function,
    made: dict[ir.OperatorIdentifier, int],
    path: Path,
    depth: int,
) -> int:
    """Nodes of a body once every function in it is written out."""
    if depth > DEPTH:
        raise _unsound(path, f"functions that call each other over {DEPTH} deep, or without end")
    count = 0
    for node in ir.traversal.RecursiveGraphIterator(body):
        name = node.op_identifier()
        if any(a.type == ir.AttributeType.UNDEFINED for a in node.attributes.values()):
            raise _unsound(path, f"{node.name or name}: an attribute without a type")
        called = model.functions.get(name)
        if called is not None and len(node.inputs) > len(called.inputs):
            raise _unsound(path, f"{node.name or name}: more inputs than its function has")
        if called is not None and name not in made:
            made[name] = _inlined(model, called, made, path, depth + 1)
        count += made.get(name, 1)
    return count


def _unsound(path: Path, found: str) -> SourceError:
    return SourceError(
        "the ONNX file is not a valid model",
        where=str(path),
        found=found,
        hint="export the model again, or copy it again from where it came",
    )
