"""One file of weights beside an ONNX model, written as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from lepton_compile.errors import EngineError

__all__ = ["STORAGE_KEY", "Placed", "write_weights"]

# Tensors with an equal key have equal bytes and are stored once, whatever their shapes.
STORAGE_KEY = "lepton.storage"

INLINE_BYTES = 1024  # smaller tensors stay inside the model file
PAGE = 4096  # runtimes map external data by pages
SMALL_ALIGNMENT = 64


@dataclass(frozen=True)
class Placed:
    """Where a tensor lies in the file."""

    offset: int
    length: int


def write_weights(
    path: Path,
    values: Iterable[ir.Value],
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write the tensors of ``values`` to ``path`` and point the values at the file.

    A tensor is computed and written block by block; none is ever held whole. Tensors of at most
    1 KiB stay in the model.

    Raises:
        EngineError: a tensor has not as many bytes as its type and shape say, or the disk is full.
    """
    pending = [v for v in values if v.const_value is not None and _is_large(v.const_value)]
    placed: dict[object, Placed] = {}
    try:
        with path.open("wb") as file:
            for index, value in enumerate(pending):
                if progress is not None:
                    progress(f"writing {value.name}", index, len(pending))
                _place(file, path, value, placed)
    except OSError as error:
        raise EngineError(
            "the weights could not be written", where=str(path), found=error.strerror or str(error)
        ) from error
    if progress is not None:
        progress("weights written", len(pending), len(pending))


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.nbytes > INLINE_BYTES


def _place(file: BinaryIO, path: Path, value: ir.Value, placed: dict[object, Placed]) -> None:
    tensor = value.const_value
    assert tensor is not None
    key = tensor.metadata_props.get(STORAGE_KEY) or id(tensor)
    if key not in placed:
        placed[key] = _append(file, tensor)
    value.const_value = ir.ExternalTensor(
        path.name,
        placed[key].offset,
        placed[key].length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        base_dir=str(path.parent),
    )


def _append(file: BinaryIO, tensor: ir.TensorProtocol) -> Placed:
    alignment = PAGE if tensor.nbytes >= PAGE else SMALL_ALIGNMENT
    offset = -(-file.tell() // alignment) * alignment
    file.write(b"\0" * (offset - file.tell()))
    tensor.tofile(file)  # type: ignore[attr-defined]  # every tensor class of onnx_ir has it
    length = file.tell() - offset
    if length != tensor.nbytes:
        raise EngineError(
            "a weight was written with another size than its type and shape have",
            where=tensor.name,
            found=f"{length} bytes",
            available=[f"{tensor.nbytes} bytes"],
        )
    return Placed(offset, length)
