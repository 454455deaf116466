"""The header of a GGUF file: metadata and the table of tensors.

Parsed here and not with ``gguf.GGUFReader``, which maps the file and makes three arrays for each
word of the vocabulary (15 s and 700 MB for 262,144 words). Nobody who asks for a header wants the
words, so they are counted and passed over. Nothing in the header is trusted: every length is held
against the size of the file before memory is asked for.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from lepton_compile.errors import CheckpointError

__all__ = ["GGUFHeader", "GGUFTensor", "read_header"]

STRING, ARRAY = 8, 9
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
MAX_DIMS = 4
MAX_DEPTH = 2
CHUNK = 1 << 20


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: ``shape`` outermost axis first, ``offset`` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    length: int


@dataclass(frozen=True)
class GGUFHeader:
    """Metadata by key (arrays of numbers as numpy, of strings as their count), tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def key(self, name: str, default: Any = None) -> Any:
        """The metadata value ``<architecture>.<name>``."""
        return self.metadata.get(f"{self.architecture}.{name}", default)


def read_header(path: Path) -> GGUFHeader:
    """Parse and check the header.

    Raises:
        CheckpointError: not a GGUF file, truncated, or a table that does not hold together.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _Parser(path, stream, size).header()
    except OSError as error:
        raise CheckpointError(
            "The GGUF file cannot be read.", where=str(path), found=str(error)
        ) from error


class _Parser:
    """A cursor over the file that reads ahead in chunks."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self.path = path
        self.stream = stream
        self.size = size
        self.data = b""
        self.base = 0  # file offset of data[0]
        self.at = 0  # cursor inside data

    def fail(self, message: str, found: object = None) -> NoReturn:
        raise CheckpointError(
            message,
            where=f"{self.path} at byte {self.base + self.at}",
            found=None if found is None else str(found),
            hint="Download or convert the file again.",
        )

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            self._fill(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def _fill(self, count: int) -> None:
        if self.base + self.at + count > self.size:
            self.fail("The GGUF file ends inside its header.", f"{self.size} bytes")
        self.base += self.at
        self.at = 0
        self.stream.seek(self.base)  # strings may have been passed over up to here
        self.data = self.stream.read(max(CHUNK, count))
        if len(self.data) < count:
            self.fail("The GGUF file ends inside its header.", f"{self.size} bytes")

    def unpack(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        length = self.unpack("<Q")
        return self.take(length).decode("utf-8", errors="replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array(depth + 1)
        code = SCALARS.get(kind)
        if code is None:
            self.fail("The GGUF metadata has a value of unknown type.", kind)
        return np.frombuffer(self.take(np.dtype(code).itemsize), code)[0].item()

    def array(self, depth: int) -> Any:
        kind, count = self.unpack("<I"), self.unpack("<Q")
        if kind in SCALARS:
            data = self.take(count * np.dtype(SCALARS[kind]).itemsize)
            return np.frombuffer(data, SCALARS[kind])
        # Each element takes eight bytes at least, so a count beyond that is a lie.
        if depth > MAX_DEPTH or count * 8 > self.size:
            self.fail("The GGUF metadata has an array that cannot be.", f"{count} elements")
        if kind == STRING:
            self.pass_strings(count)
            return count
        return [self.value(kind, depth) for _ in range(count)]

    def pass_strings(self, count: int) -> None:
        """Go on behind so many strings."""
        length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self.at + 8 > len(self.data):
                self._fill(8)
            self.at += 8 + length(self.data, self.at)[0]
        if self.at > len(self.data):
            self._fill(0)

    def header(self) -> GGUFHeader:
        if self.size < 24 or self.take(4) != b"GGUF":
            self.fail("Not a GGUF file.")
        version = self.unpack("<I")
        if version not in (2, 3):
            self.fail("This version of GGUF cannot be read; 2 and 3 can.", version)
        tensor_count, key_count = self.unpack("<Q"), self.unpack("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self.string()
            if key in metadata:
                self.fail("The GGUF metadata has a key twice.", key)
            metadata[key] = self.value(self.unpack("<I"))
        entries = [self.tensor() for _ in range(tensor_count)]
        return GGUFHeader(self.path, metadata, self.place(entries, metadata))

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, rank = self.string(), self.unpack("<I")
        if rank > MAX_DIMS:
            self.fail("A GGUF tensor has too many axes.", f"{name}: {rank}")
        shape = tuple(self.unpack("<Q") for _ in range(rank))[::-1]
        return name, shape, self.unpack("<I"), self.unpack("<Q")

    def place(
        self, entries: list[tuple[str, tuple[int, ...], int, int]], metadata: dict[str, Any]
    ) -> dict[str, GGUFTensor]:
        """Check sizes and offsets against the file; tensors by name."""
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self.fail("The GGUF alignment is not a power of two.", alignment)
        start = -(-(self.base + self.at) // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in entries:
            if name in tensors:
                self.fail("The GGUF file holds a tensor twice.", name)
            length = self.byte_length(name, shape, kind)
            if start + offset + length > self.size:
                self.fail("A GGUF tensor lies beyond the end of the file.", name)
            tensors[name] = GGUFTensor(name, shape, kind, start + offset, length)
        end = start
        for tensor in sorted(tensors.values(), key=lambda t: t.offset):
            if tensor.offset < end:
                self.fail("Two GGUF tensors overlap.", tensor.name)
            end = tensor.offset + tensor.length
        return tensors

    def byte_length(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            self.fail("A GGUF tensor has an unknown type.", f"{name}: {kind}")
        if not shape or min(shape) < 1 or shape[-1] % block:
            self.fail("A GGUF tensor has a shape its type does not allow.", f"{name}: {shape}")
        return math.prod(shape) // int(block) * int(block_bytes)
