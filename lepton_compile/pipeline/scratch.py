"""Weights of graphs that run now and then during a build, in one scratch file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from lepton_passes.tensors import StreamedTensor

__all__ = ["Once", "Remake", "ScratchWeights", "anew"]

_INLINE_BYTES = 1024

Remake = Callable[[ir.TensorProtocol], StreamedTensor]
Once = Callable[[ir.TensorProtocol, str, Remake], StreamedTensor]


def anew(tensor: ir.TensorProtocol, form: str, remake: Remake) -> StreamedTensor:
    """What ``remake`` makes of a tensor: ``ScratchWeights.once`` for a graph that runs once."""
    return remake(tensor)


class ScratchWeights:
    """The scratch file of weights, and where each tensor lies in it.

    A weight goes there once, keyed by the tensor, however many graphs read it; a runtime maps the
    file, so weights are not held in memory either. Until the file is closed its rows are read from
    there: a pass that packs what another one has rounded does not have it rounded again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("w+b")
        self._placed: dict[int, tuple[int, int]] = {}
        self._alive: list[ir.TensorProtocol] = []  # an id is unique only while its object lives
        self._read_here: list[StreamedTensor] = []
        self._remade: dict[tuple[int, str], StreamedTensor] = {}

    def once(self, tensor: ir.TensorProtocol, form: str, remake: Remake) -> StreamedTensor:
        """The tensor in another form, so called: as ``remake`` made it for an earlier graph, or
        makes it now. In that form it goes to the file once, too."""
        key = (id(tensor), form)
        if key not in self._remade:
            self._remade[key] = remake(tensor)
            self._alive.append(tensor)
        return self._remade[key]

    def close(self) -> None:
        """Close the file; whoever made its folder removes it. Tensors make their rows again."""
        for tensor in self._read_here:
            tensor.make_again()
        self._read_here.clear()
        self._file.close()

    def externalized(self, model: ir.Model) -> bytes:
        """The model as bytes, its weights in the file; ``model`` is as before afterwards."""
        values = [
            v
            for v in model.graph.initializers.values()
            if v.const_value is not None and v.const_value.nbytes > _INLINE_BYTES
        ]
        kept = [v.const_value for v in values]
        try:
            for value, tensor in zip(values, kept, strict=True):
                assert tensor is not None
                value.const_value = self._external(value, tensor)
            data: bytes = ir.serde.serialize_model(model).SerializeToString()
        finally:
            for value, tensor in zip(values, kept, strict=True):
                value.const_value = tensor
        return data

    def _external(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        if id(tensor) not in self._placed:
            offset = self._file.tell()
            tensor.tofile(self._file)  # type: ignore[attr-defined]  # of every tensor class
            self._placed[id(tensor)] = (offset, self._file.tell() - offset)
            self._alive.append(tensor)
            self._file.flush()
            if isinstance(tensor, StreamedTensor) and tensor.read_from(self._file.fileno(), offset):
                self._read_here.append(tensor)
        offset, length = self._placed[id(tensor)]
        return ir.ExternalTensor(
            self._path.name,
            offset,
            length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
