"""What every checkpoint offers, whatever its file format.

Tensors are listed from headers alone and read with plain file reads, never through a memory map:
a mapped page counts as resident memory, and a 16 GB checkpoint would break any ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.integers import Integers
from lepton_passes.tensors import StreamedTensor

__all__ = ["Checkpoint", "Location", "TensorInfo", "read_bytes"]


@dataclass(frozen=True)
class Location:
    """Where the plain little-endian bytes of a tensor lie."""

    file: Path
    offset: int
    length: int


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as its header describes it.

    Attributes:
        dtype: element type that reading gives (block-quantized GGUF types read as FLOAT).
        shape: shape in the Hugging Face convention, outermost axis first.
        location: the bytes, where they are the tensor as it stands; None if reading computes.
        integers: that hold its values, if it was quantized.
    """

    dtype: ir.DataType
    shape: tuple[int, ...]
    location: Location | None = None
    integers: Integers | None = None


class Checkpoint(Protocol):
    """Named tensors of one model, under their Hugging Face names."""

    def names(self) -> Mapping[str, TensorInfo]:
        """Every tensor, by name, in the order of the files."""

    def tensor(self, name: str) -> StreamedTensor:
        """The tensor ``name``, read lazily.

        Raises:
            CheckpointError: there is none of that name; on reading, the file ends too early.
        """

    def files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""


def read_bytes(file: Path, offset: int, length: int) -> np.ndarray:
    """``length`` bytes of ``file`` from ``offset``, as a writable uint8 array.

    Raises:
        CheckpointError: the file cannot be read, or ends before ``offset + length``.
    """
    buffer = np.empty(length, dtype=np.uint8)
    view = buffer.data
    try:
        with file.open("rb", buffering=0) as stream:
            stream.seek(offset)
            done = 0
            while done < length:
                count = stream.readinto(view[done:])  # may be short: one call reads 2 GiB at most
                if not count:
                    raise CheckpointError(
                        "The weight file ends before the tensor does.",
                        where=str(file),
                        found=f"{done} of {length} bytes at offset {offset}",
                        hint="Download or copy the file again.",
                    )
                done += count
    except OSError as error:
        raise CheckpointError(
            "The weight file cannot be read.", where=str(file), found=str(error)
        ) from error
    return buffer
