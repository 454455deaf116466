"""Tensors of an ONNX model whose bytes lie in other files.

They are looked for wherever a tensor can stand: initializers and attributes, of the graph, of its
subgraphs and of functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir

from lepton_compile.errors import SourceError

__all__ = ["held_in_memory", "tensors_of", "weight_files"]


def weight_files(model: ir.Model, path: Path) -> list[Path]:
    """The files beside ``path`` that the model keeps weights in, sorted.

    Raises:
        SourceError: a file outside the folder of ``path``, a missing or a truncated one.
    """
    found: set[Path] = set()
    for tensor in (t for t in tensors_of(model) if isinstance(t, ir.ExternalTensor)):
        location = Path(os.path.normpath(tensor.location))
        file = path.parent / location
        what = f"{tensor.location} (for {tensor.name or 'a constant'})"
        if location.is_absolute() or location.parts[:1] == ("..",) or _leads_out(file, path):
            raise SourceError(
                "the ONNX file names weights outside its own folder",
                where=str(path),
                found=what,
                hint="save the model again with its weights beside it",
            )
        if tensor.length not in (None, tensor.nbytes):
            raise SourceError(
                "the ONNX file says of a weight how many bytes it has, and they are not its own",
                where=str(path),
                found=f"{tensor.length} bytes in {what}; its shape and type have {tensor.nbytes}",
                hint="export the model again",
            )
        end = (tensor.offset or 0) + tensor.nbytes
        if not os.path.isfile(file) or file.stat().st_size < end:
            raise SourceError(
                "the weights of the ONNX file are missing or truncated",
                where=str(path),
                found=what,
                hint="copy the model again, with every file that it came with",
            )
        tensor.base_dir = str(path.parent)  # onnx_ir leaves it out inside functions
        found.add(file)
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _without_links(value.const_value)
    return sorted(found)


def held_in_memory(model: ir.Model, wanted: Callable[[ir.ExternalTensor], bool]) -> None:
    """Read the external tensors that are ``wanted``: afterwards the model holds their bytes."""
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor) and wanted(value.const_value):
                value.const_value = _read(value.const_value)
    for node in _nodes(model):
        for name, attribute in list(node.attributes.items()):
            tensors = _tensors(attribute)
            if any(isinstance(t, ir.ExternalTensor) and wanted(t) for t in tensors):
                node.attributes[name] = _with_values(attribute)


def _leads_out(file: Path, model: Path) -> bool:
    """Whether a link leads elsewhere than the model's own: the cache of the hub links to blobs."""
    homes = (model.parent.resolve(), model.resolve().parent)
    try:
        return not any(file.resolve().is_relative_to(home) for home in homes)
    except (OSError, RuntimeError, ValueError):  # a name that no file has, links in a circle
        return True


def tensors_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor of the model, wherever one can stand."""
    for graph in _graphs(model):
        values = (value.const_value for value in graph.initializers.values())
        yield from (tensor for tensor in values if tensor is not None)
    for node in _nodes(model):
        for attribute in node.attributes.values():
            yield from _tensors(attribute)


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield model.graph
    yield from model.graph.subgraphs()
    for function in model.functions.values():
        yield from function.subgraphs()


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for body in bodies:
        yield from ir.traversal.RecursiveGraphIterator(body)


def _tensors(attribute: ir.Attr) -> list[ir.TensorProtocol]:
    if attribute.is_ref():
        return []
    if attribute.type == ir.AttributeType.TENSOR:
        return [attribute.as_tensor()]
    return list(attribute.as_tensors()) if attribute.type == ir.AttributeType.TENSORS else []


def _with_values(attribute: ir.Attr) -> ir.Attr:
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.AttrTensor(attribute.name, _read(attribute.as_tensor()))
    return ir.AttrTensors(attribute.name, [_read(t) for t in attribute.as_tensors()])


def _read(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    (read,) = ir.external_data.convert_tensors_from_external([_without_links(tensor)])
    return read


def _without_links(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    """The same bytes by the file that a link leads to: onnx_ir reads none through the hub's."""
    real = Path(tensor.path).resolve()
    return ir.ExternalTensor(
        real.name,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        base_dir=str(real.parent),
    )
