"""compressed-tensors, as LLM Compressor writes them: one layout for each group of layers.

    X.weight              I8 or F8_E4M3 (rows, columns)              int-, float-, naive-quantized
    X.weight_packed       I32, 4 or 8 bits in offset binary          pack-quantized
    X.weight_packed       U8, two floats (E2M1) a byte               nvfp4-, mxfp4-pack-quantized
    X.weight_scale        (rows, groups), (rows / block, columns / block), (rows, 1) or one
    X.weight_zero_point   of the same shape; packed along the rows in pack-quantized
    X.weight_shape        (rows, columns) of what is packed in I32
    X.weight_global_scale what the scales of nvfp4 were multiplied by
    X.weight_g_idx        the group of each column, where they are not in order

Which of them a layer has is told by its tensors. Source: the library of the same name, 0.20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint

from .checkpoint import QuantizedCheckpoint, Weight
from .rows import Rows, by_whole, constant, integers, less, nibbles, scaled, stored, unpacked
from .settings import BITS, activations, block_of, unknown

__all__ = ["read_compressed"]

LAYOUTS = (
    *("dense", "mixed-precision", "naive-quantized", "int-quantized", "float-quantized"),
    *("pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"),
)
OTHERS = ("weight_zero_point", "weight_shape", "weight_global_scale", "weight_g_idx")


def read_compressed(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``.

    Raises:
        SourceError: a layout that is not read, sparse ones among them.
        CheckpointError: tensors of a layer that do not fit each other.
    """
    block = _checked(config)
    known, weights = checkpoint.names(), {}
    for scale in known:
        layer = scale.removesuffix(".weight_scale")
        if layer == scale:
            continue
        stored_as = [f"{layer}.{name}" for name in ("weight_packed", "weight", *OTHERS)]
        parts = [name for name in stored_as if name in known]
        if parts and parts[0] in stored_as[:2]:
            name = f"{layer}.weight"
            rows = _Layer(checkpoint, layer, parts[0]).values(block)
            weights[name] = Weight.of(name, rows, (*parts, scale))
    return QuantizedCheckpoint(checkpoint, weights, activations(known))


def _checked(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The block that all layers with blocks share."""
    sparse = config.get("sparsity_config")
    if isinstance(sparse, Mapping) and sparse.get("format", "dense") != "dense":
        raise unknown("sparsity_config", sparse.get("format"), ["dense"])
    groups = list(_groups(config))
    for layout in (config.get("format"), *(group.get("format") for group in groups)):
        if layout is not None and layout not in LAYOUTS:
            raise unknown("format", layout, LAYOUTS)
    weights = [group.get("weights") for group in groups]
    blocks = [each.get("block_structure") for each in weights if isinstance(each, Mapping)]
    found = {block_of(each) for each in blocks if each is not None}
    return found.pop() if len(found) == 1 else None


def _groups(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = config.get("config_groups")
    if isinstance(groups, Mapping):
        yield from (group for group in groups.values() if isinstance(group, Mapping))


@dataclass(frozen=True)
class _Layer:
    """A linear layer: its name, and that of the tensor with its codes."""

    checkpoint: Checkpoint
    name: str
    codes: str

    def values(self, block: tuple[int, int] | None) -> Rows:
        """Its weight."""
        (codes, zeros, bits), scales = self._codes_and_zeros(), self._scales()
        ordered = self._has("weight_g_idx")
        groups = partial(self._groups, codes.shape[1], scales.shape[1]) if ordered else None
        where = f"{self.name}.weight"
        return scaled(
            codes, scales, where=where, zeros=zeros, block=block, groups=groups, bits=bits
        )

    def _codes_and_zeros(self) -> tuple[Rows, Rows | None, int | None]:
        """Codes, zero points where there are any, and the bits of both where they are unsigned."""
        has_zeros = self._has("weight_zero_point")
        if not self.codes.endswith("_packed"):
            zeros = self._stored("weight_zero_point") if has_zeros else None
            return stored(self.checkpoint, self.codes), zeros, None
        info = self.checkpoint.names()[self.codes]
        if info.dtype != ir.DataType.INT32:
            return nibbles(self.checkpoint, self.codes), None, None
        bits, columns = self._packing(info.shape[-1])
        codes = integers(self.checkpoint, self.codes, bits, columns)
        # Both are in offset binary, and one is taken from the other.
        if has_zeros:
            return codes, self._zeros(bits), bits
        middle = 1 << (bits - 1)
        if self._has("weight_g_idx"):
            return codes, constant(self._scales().shape, middle), bits
        return less(codes, middle), None, None

    def _packing(self, words: int) -> tuple[int, int]:
        """Bits and columns of a weight, of which the last word of a row may have room for more."""
        if not self._has("weight_shape"):
            raise unknown("packed integers without a shape", self.codes, ["X.weight_shape"])
        columns = int(self._read("weight_shape").reshape(-1)[-1])
        for bits in BITS:
            if words == -(-columns * bits // 32):
                return bits, columns
        raise unknown(
            "number of bits", f"{columns} integers in {words} words", [str(each) for each in BITS]
        )

    def _zeros(self, bits: int) -> Rows:
        """Packed along the rows: eight or four of them in a word of a group's."""
        shape = self.checkpoint.names()[f"{self.name}.weight_zero_point"].shape
        groups, each = shape[-1], 32 // bits

        def read(start: int, stop: int) -> np.ndarray:
            words = self._read("weight_zero_point")[start // each : -(-stop // each)]
            codes = unpacked(np.ascontiguousarray(words.T).view(np.uint8), bits)
            first = start // each * each
            return codes[:, start - first : stop - first].T.astype(np.float32)

        return Rows((shape[0] * each, groups), read)

    def _scales(self) -> Rows:
        scales = self._stored("weight_scale")
        if not self._has("weight_global_scale"):
            return scales
        return by_whole(np.divide, scales, self.checkpoint, f"{self.name}.weight_global_scale")

    def _groups(self, columns: int, groups: int) -> np.ndarray:
        found = self._read("weight_g_idx")
        if (found == -1).all():  # made, and never filled in: columns are in order
            return np.arange(columns) * groups // columns
        return found

    def _has(self, part: str) -> bool:
        return f"{self.name}.{part}" in self.checkpoint.names()

    def _stored(self, part: str) -> Rows:
        return stored(self.checkpoint, f"{self.name}.{part}")

    def _read(self, part: str) -> np.ndarray:
        return self.checkpoint.tensor(f"{self.name}.{part}").numpy()
