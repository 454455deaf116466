"""One file of weights beside an ONNX model, written as a stream; engines in one folder share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from lepton_compile.errors import EngineError
from lepton_compile.progress import Step
from lepton_passes.lowering.ort.packing import STORAGE

__all__ = ["INLINE_BYTES", "Placed", "WeightStore", "aligned", "write_weights"]

INLINE_BYTES = 1024  # smaller tensors stay inside the model file
PAGE = 4096  # runtimes map external data by pages
SMALL_ALIGNMENT = 64


@dataclass(frozen=True)
class Placed:
    """Where a tensor lies: the name of a file in the folder, and bytes of it."""

    file: str
    offset: int
    length: int


@dataclass
class WeightStore:
    """What the engines of one folder have written so far: the next one points at equal bytes.

    Attributes:
        placed: by SHA-256.
    """

    placed: dict[bytes, Placed] = field(default_factory=dict)


def write_weights(
    path: Path,
    values: Iterable[ir.Value],
    progress: Step | None,
    store: WeightStore | None,
) -> set[str]:
    """Write the tensors of ``values`` to ``path`` and point the values at the file.

    A tensor is computed and written block by block; none is ever held whole. Tensors of at most
    1 KiB stay in the model.

    Args:
        store: of the engines that share the folder; what one of them wrote is not kept twice.

    Returns:
        Names of the files that the values point at.

    Raises:
        EngineError: a tensor has not as many bytes as its type and shape say.
        OSError: the disk is full; whoever writes the artifact says which output that is.
    """
    pending = [v for v in values if v.const_value is not None and _is_large(v.const_value)]
    placed: dict[object, Placed] = {}
    with path.open("wb") as file:
        for index, value in enumerate(pending):
            if progress is not None:
                progress(f"writing {value.name}", index, len(pending))
            _place(file, path, value, placed, store)
    if progress is not None:
        progress("weights written", len(pending), len(pending))
    used = {each.file for each in placed.values()}
    if store is not None and path.name not in used:
        path.unlink()  # all of it was there already
    return used


def aligned(end: int, size: int) -> int:
    """Where a weight of so many bytes begins behind ``end``: at a page, if it fills one."""
    alignment = PAGE if size >= PAGE else SMALL_ALIGNMENT
    return -(-end // alignment) * alignment


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.nbytes > INLINE_BYTES


def _place(
    file: BinaryIO,
    path: Path,
    value: ir.Value,
    placed: dict[object, Placed],
    store: WeightStore | None,
) -> None:
    tensor = value.const_value
    assert tensor is not None
    key = tensor.metadata_props.get(STORAGE) or id(tensor)
    if key not in placed:
        placed[key] = _append(file, path.name, tensor, store)
    value.const_value = ir.ExternalTensor(
        placed[key].file,
        placed[key].offset,
        placed[key].length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        base_dir=str(path.parent),
    )


def _append(
    file: BinaryIO, name: str, tensor: ir.TensorProtocol, store: WeightStore | None
) -> Placed:
    before = file.tell()
    offset = aligned(before, tensor.nbytes)
    file.write(b"\0" * (offset - before))
    hashed = _Hashed(file) if store is not None else None
    tensor.tofile(hashed or file)  # type: ignore[attr-defined]  # every class of onnx_ir has it
    length = file.tell() - offset
    if length != tensor.nbytes:
        raise EngineError(
            "a weight was written with another size than its type and shape have",
            where=tensor.name,
            found=f"{length} bytes",
            available=[f"{tensor.nbytes} bytes"],
        )
    made = Placed(name, offset, length)
    if store is None or hashed is None:
        return made
    kept = store.placed.setdefault(hashed.sha256.digest(), made)
    if kept is not made:
        file.seek(before)
        file.truncate()
    return kept


class _Hashed:
    """A file that knows the digest of what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)
