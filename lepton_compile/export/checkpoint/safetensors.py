"""Safetensors: one file, or shards behind an index.

The ``safetensors`` library checks each header (sizes, overlaps, holes); the offsets are then taken
from the same header, eight bytes of length and a JSON object, so that rows can be read directly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from os.path import isfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.base import Location, TensorInfo, read_bytes
from lepton_compile.export.json_file import read_json
from lepton_passes.stacks import Stack
from lepton_passes.tensors import StreamedTensor

__all__ = ["INDEX_NAME", "SINGLE_NAME", "SafetensorsCheckpoint", "plain", "read_header"]

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
HEADER_LIMIT = 100_000_000  # the library's own limit

DTYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F8_E8M0": ir.DataType.FLOAT8E8M0,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I16": ir.DataType.INT16,
    "I8": ir.DataType.INT8,
    "U64": ir.DataType.UINT64,
    "U32": ir.DataType.UINT32,
    "U16": ir.DataType.UINT16,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
}


class SafetensorsCheckpoint:
    """The weights of a folder in the layout of ``save_pretrained``.

    Args:
        folder: holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.
        single: another name for the one file.

    Raises:
        CheckpointError: no weights, a damaged header, or an index that does not fit its shards.
    """

    def __init__(self, folder: Path, single: str = SINGLE_NAME) -> None:
        self._files = _weight_files(folder, single)
        self._tensors: dict[str, TensorInfo] = {}
        for file in self._files:
            for name, info in read_header(file).items():
                if name in self._tensors:
                    raise CheckpointError(
                        "Two shards hold the same tensor.", where=str(file), found=name
                    )
                self._tensors[name] = info
        if self._files[0].name != single:
            _check_index(folder, self._tensors)

    def names(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def files(self) -> tuple[Path, ...]:
        return self._files

    def tensor(self, name: str) -> StreamedTensor:
        info = self._tensors.get(name)
        if info is None or info.location is None:
            raise CheckpointError("The checkpoint has no such tensor.", found=name)
        return plain(name, info)


def plain(name: str, info: TensorInfo) -> StreamedTensor:
    """A tensor whose bytes lie in a file, which has to say where: in the shape that ``info`` has,
    by rows of its matrices where that is a stack."""
    assert info.location is not None
    return _streamed(name, info, info.location)


def _streamed(name: str, info: TensorInfo, location: Location) -> StreamedTensor:
    dtype = info.dtype.numpy()
    if len(info.shape) == 3 and info.shape[0] > 0:  # by rows of its matrices
        count, rows, columns = info.shape
        flat = TensorInfo(info.dtype, (count * rows, columns))
        return Stack(_streamed(name, flat, location), count)
    tail = info.shape[1:]
    row_bytes = prod(tail) * dtype.itemsize

    def read(start: int, stop: int) -> np.ndarray:
        data = read_bytes(
            location.file, location.offset + start * row_bytes, (stop - start) * row_bytes
        )
        return data.view(dtype).reshape(stop - start, *tail)

    return StreamedTensor(name, info.dtype, info.shape, read)


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated, or its header does not hold together.
    """
    _validate(file)
    length = int(read_bytes(file, 0, 8).view("<u8")[0])
    if length > HEADER_LIMIT:
        raise CheckpointError("The header is too large.", where=str(file), found=f"{length} bytes")
    header = json.loads(read_bytes(file, 8, length).tobytes())
    header.pop("__metadata__", None)
    return {name: _info(file, name, entry, 8 + length) for name, entry in header.items()}


def _validate(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            "The safetensors file is not intact.",
            where=str(file),
            found=str(error),
            hint="Download or copy the file again.",
        ) from error


def _info(file: Path, name: str, entry: dict[str, Any], base: int) -> TensorInfo:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise CheckpointError(
            "A tensor has an element type that cannot be compiled.",
            where=f"{file}: {name}",
            found=entry["dtype"],
            available=list(DTYPES),
        )
    begin, end = entry["data_offsets"]
    location = Location(file, base + begin, end - begin)
    return TensorInfo(dtype, tuple(entry["shape"]), location)


def _weight_files(folder: Path, single: str) -> tuple[Path, ...]:
    index = folder / INDEX_NAME
    if (folder / single).is_file():
        return (folder / single,)
    if not index.is_file():
        raise CheckpointError(
            "The folder holds no safetensors weights.",
            where=str(folder),
            available=sorted(f.name for f in folder.iterdir() if f.is_file()),
            hint=f"Expected {single} or {INDEX_NAME}; save_pretrained writes them.",
        )
    return tuple(folder / name for name in sorted(set(_weight_map(index).values())))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = read_json(index)["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "The shard index cannot be read.", where=str(index), found=repr(error)
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise CheckpointError("The shard index has no map of names to files.", where=str(index))
    for name in set(found.values()):
        # Lexical, because the hub cache links each file to a blob outside its folder.
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(
                "The shard index names a file that is not a safetensors file of its folder.",
                where=str(index),
                found=name,
            )
        if not isfile(index.parent / name):  # which no name is too long for
            raise CheckpointError(
                "A shard is missing.",
                where=str(index),
                found=name,
                hint="Download the folder again.",
            )
    return found


def _check_index(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    weight_map = _weight_map(folder / INDEX_NAME)
    wrong = []
    for name, file in weight_map.items():
        info = tensors.get(name)
        if info is None or info.location is None or info.location.file.name != file:
            wrong.append(f"{name} in {file}")
    if wrong:
        raise CheckpointError(
            "The shard index lists tensors that its shards do not hold.",
            where=str(folder / INDEX_NAME),
            found=", ".join(wrong),
        )
