"""Open an ONNX file without the weights that stand inside it: each stays in the file until it is
read, as one in a file of its own does.

    Before   initializer W: name, type, shape, and its bytes
    After    initializer W: name, type, shape, and where in this very file its bytes are

protobuf would hold the whole file, all of its weights beside it, and each again as it is read. Here
its fields are walked over, and it is given all but the bytes of large weights. What is written in
another way, or damaged, is left to protobuf, whose errors say what is wrong.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from lepton_compile.errors import SourceError

__all__ = ["load_onnx", "load_proto", "parsed_bytes"]

NAMED = 4  # weights that a message names
LARGE = 4096  # bytes from which on a weight stays in the file

_GRAPH, _INITIALIZER = 7, 5  # fields of a ModelProto, of a GraphProto
_RAW_DATA = onnx.TensorProto.RAW_DATA_FIELD_NUMBER
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field's value is written


class _Field(NamedTuple):
    """A field of a message: ``begin`` is where its tag is, ``value`` where what it has begins."""

    number: int
    kind: int
    begin: int
    value: int
    end: int


def load_onnx(path: Path) -> ir.Model:
    """The model of a file, its large weights where they are.

    Raises:
        SourceError: weights are sparse, which onnx_ir reads a graph without.
        Exception: whatever protobuf, onnx_ir and the file system raise for a file that is no model.
    """
    proto = _without_weights(path)
    if proto is None:
        return ir.load(path)
    sparse = [tensor.values.name for tensor in _sparse(proto.graph)]
    if sparse:
        raise SourceError(
            "the ONNX file has weights that are sparse tensors",
            where=str(path),
            found=", ".join(sparse[:NAMED]) + (", .." if len(sparse) > NAMED else ""),
            available=["dense weights"],
            hint="export the model again, with these weights dense",
        )
    model = ir.serde.deserialize_model(proto)
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def load_proto(path: Path) -> onnx.ModelProto:
    """The model of a file as protobuf has it; large weights seem to be in a file of its name.

    Raises:
        Exception: whatever protobuf and the file system raise for a file that is no model.
    """
    proto = _without_weights(path)
    return onnx.load(path, load_external_data=False) if proto is None else proto


def parsed_bytes(path: Path) -> int:
    """How many bytes of a file ``load_onnx`` has protobuf read."""
    proto = _without_weights(path)
    return path.stat().st_size if proto is None else proto.ByteSize()


def _sparse(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    """Weights that are sparse, of branches, too."""
    yield from graph.sparse_initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _sparse(inner)


def _without_weights(path: Path) -> onnx.ModelProto | None:
    """None where protobuf has to read the file as it is."""
    if path.suffix != ".onnx" or not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            parts = [_part(data, field, path.name) for field in _fields(data, 0, len(data))]
            return onnx.ModelProto.FromString(b"".join(parts))
        except Exception:  # of protobuf, too, which says more of the whole file
            return None


def _part(data: mmap.mmap, field: _Field, location: str) -> bytes:
    """A field of the model, as it is to be read."""
    if (field.number, field.kind) != (_GRAPH, _BYTES):
        return data[field.begin : field.end]
    graph = b"".join(
        _refers(data, each, location) or data[each.begin : each.end]
        for each in _fields(data, field.value, field.end)
    )
    return _message(_GRAPH, graph)


def _refers(data: mmap.mmap, field: _Field, location: str) -> bytes | None:
    """A large weight without its bytes; None for all else of a graph."""
    if (field.number, field.kind) != (_INITIALIZER, _BYTES) or field.end - field.value < LARGE:
        return None
    fields = list(_fields(data, field.value, field.end))
    held = [each for each in fields if each.number == _RAW_DATA and each.kind == _BYTES]
    if len(held) != 1 or held[0].end - held[0].value < LARGE:
        return None
    rest = b"".join(data[each.begin : each.end] for each in fields if each is not held[0])
    tensor = onnx.TensorProto.FromString(rest)
    if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
        return None
    length = held[0].end - held[0].value
    if ir.serde.TensorProtoTensor(tensor).nbytes != length:
        return None
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": held[0].value, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return _message(_INITIALIZER, tensor.SerializeToString())


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    """The fields of the message in bytes ``at`` to ``end``.

    Raises:
        ValueError: these are none.
    """
    while at < end:
        tag, value = _varint(data, at, end)
        kind = tag & 7
        if kind == _BYTES:
            length, value = _varint(data, value, end)
            after = value + length
        elif kind == _VARINT:
            after = _varint(data, value, end)[1]
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            after = value + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise ValueError(f"a field of kind {kind}")
        if after > end:
            raise ValueError("a field that ends behind its message")
        yield _Field(tag >> 3, kind, at, value, after)
        at = after


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number at ``at``, and what is behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        number, at = number | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return number, at
    raise ValueError("a number without an end")


def _message(number: int, data: bytes) -> bytes:
    """A field that is a message."""
    written, rest = bytearray([number << 3 | _BYTES]), len(data)
    while rest >= 0x80:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*written, rest]) + data
