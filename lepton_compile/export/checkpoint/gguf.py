"""GGUF: blocks of quantized rows, dequantized as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.base import Location, TensorInfo
from lepton_compile.export.checkpoint.gguf_architectures import ARCHITECTURES
from lepton_compile.export.checkpoint.gguf_blocks import GRIDS, GROUP
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader, GGUFTensor
from lepton_compile.export.checkpoint.gguf_layout import hugging_face_names, kind_of
from lepton_compile.export.checkpoint.gguf_values import (
    PLAIN,
    halves,
    less_one,
    reshaped,
    stored_rows,
    unpermuted,
)
from lepton_compile.export.checkpoint.integers import EIGHT_BITS, Integers, four_bits, widest
from lepton_passes.grouped import Grouped, grouped, rearranged, without_grid
from lepton_passes.stacks import Stack, Turned, taking_turns
from lepton_passes.tensors import StreamedTensor, transposed

__all__ = ["GGUFCheckpoint"]

CACHE_BYTES = 32 << 20
Q4_0 = 2
"""The type of symmetric integers of 4 bits, which rounding to 4 bits finds again."""


class GGUFCheckpoint:
    """The weights of a GGUF file under their Hugging Face names.

    Quantized tensors read as float32. The last block read is kept, because a quantizer asks for the
    same rows twice: once for the scales, once for the values.

    Args:
        header: of the ``.gguf`` file.

    Raises:
        CheckpointError: an unknown architecture, tensors that it does not have, a type that cannot
            be read, or one part of several.
    """

    def __init__(self, header: GGUFHeader) -> None:
        parts = header.metadata.get("split.count", 0)
        if not isinstance(parts, int) or parts > 1:
            raise CheckpointError(
                "This GGUF file is one part of several.",
                where=str(header.path),
                found=f"split.count {parts}",
                hint="Join them with `llama-gguf-split --merge`.",
            )
        self._path = header.path
        self._heads = (int(_first(header.key("attention.head_count", 0))), _kv_heads(header))
        self._architecture = header.architecture
        self._last: tuple[str, int, int, np.ndarray] | None = None
        names = hugging_face_names(header.architecture, header.tensors, header.path)
        stored = {name: [header.tensors[n] for n in parts] for name, parts in names.items()}
        self._tensors = {name: self._made(name, parts) for name, parts in stored.items()}
        self._infos = {name: self._info(name, parts) for name, parts in stored.items()}

    def names(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def files(self) -> tuple[Path, ...]:
        return (self._path,)

    def tensor(self, name: str) -> StreamedTensor:
        if name not in self._tensors:
            raise CheckpointError("The checkpoint has no such tensor.", found=name)
        return self._tensors[name]

    def _info(self, name: str, parts: list[GGUFTensor]) -> TensorInfo:
        tensor, stored = self._tensors[name], parts[0]
        shape = tuple(int(d) for d in tensor.shape.numpy())
        if len(parts) > 1 or stored.type not in PLAIN or self._changes(stored):
            held = widest(self._integers(part) for part in parts)
            return TensorInfo(tensor.dtype, shape, integers=held)
        return TensorInfo(tensor.dtype, shape, Location(self._path, stored.offset, stored.length))

    def _integers(self, stored: GGUFTensor) -> Integers | None:
        """What holds the values of a tensor of the file."""
        if stored.type in PLAIN:
            return None
        kind, own = kind_of(stored.name), stored.type in GRIDS
        turned = kind in ARCHITECTURES[self._architecture].turned and not kind.endswith("_exps")
        if turned or not (own or stored.type == Q4_0):
            return EIGHT_BITS
        return four_bits(GROUP, own=own)

    def _changes(self, stored: GGUFTensor) -> bool:
        """Whether the converter did something to the values or their order."""
        layout, kind = ARCHITECTURES[self._architecture], kind_of(stored.name)
        offset = layout.norm_offset and kind.endswith("norm")
        return offset or kind in layout.permuted or kind in layout.turned

    def _made(self, name: str, parts: list[GGUFTensor]) -> StreamedTensor:
        """The tensor ``name`` of the model, of the one or two that it is stored as."""
        layout, kind = ARCHITECTURES[self._architecture], kind_of(parts[0].name)
        stack = kind.endswith("_exps") and len(parts[0].shape) > 1
        count = parts[0].shape[0]
        rows = self._unchanged(kind, stored_rows(self._path, parts[0], stack))
        if len(parts) > 1:
            other = stored_rows(self._path, parts[1], stack)
            rows = rearranged(lambda one, two: halves(one, two, count), rows, other)
            if layout.in_turns:
                rows = rearranged(lambda both: taking_turns(both, count), rows)
        if any(part.type not in PLAIN for part in parts):
            rows = self._kept(name, rows)
        made, turned = rows, kind in layout.turned and len(rows.shape) > 1
        if stack:
            made = Turned(rows, count) if turned else Stack(rows, count)
        elif turned:
            made = without_grid(transposed(rows), "it lies the other way round", rows)
        axis = layout.added.get(f"{kind}.{parts[0].name.rpartition('.')[2]}")
        made = made if axis is None else reshaped(made, axis)
        made.name = name
        return made

    def _unchanged(self, kind: str, rows: StreamedTensor) -> StreamedTensor:
        """Undo what the converter did to the values."""
        layout = ARCHITECTURES[self._architecture]
        if layout.norm_offset and kind.endswith("norm"):
            return less_one(rows)
        if kind in layout.permuted:
            heads = self._heads[0 if kind == "attn_q" else 1]
            return rearranged(lambda each: unpermuted(each, heads), rows)
        return rows

    def _kept(self, name: str, tensor: StreamedTensor) -> StreamedTensor:
        """The same, with the rows that were read last at hand."""

        def read(start: int, stop: int) -> np.ndarray:
            last = self._last  # one snapshot, so that another thread cannot change it between
            if last is not None and last[0] == name and last[1] <= start and stop <= last[2]:
                return last[3][start - last[1] : stop - last[1]]
            rows = tensor.rows(start, stop)
            rows.flags.writeable = False
            self._last = (name, start, stop, rows) if rows.nbytes <= CACHE_BYTES else None
            return rows

        kept = StreamedTensor(name, tensor.dtype, tensor.shape.numpy(), read)
        source = grouped(tensor)
        return kept if source is None else Grouped(kept, source.grid)


def _kv_heads(header: GGUFHeader) -> int:
    default = header.key("attention.head_count", 0)
    return int(_first(header.key("attention.head_count_kv", default)))


def _first(value: object) -> int:
    """A number that some files give once for each layer."""
    return int(np.asarray(value).reshape(-1)[0])
