"""compressed-tensors, as LLM Compressor writes them: one layout for each group of layers.

    X.weight              I8 or F8_E4M3 (rows, columns)              int-, float-, naive-quantized
    X.weight_packed       I32, 4 or 8 bits in offset binary          pack-quantized
    X.weight_packed       U8, two floats (E2M1) a byte               nvfp4-, mxfp4-pack-quantized
    X.weight_scale        (rows, groups), (rows / block, columns / block), (rows, 1) or one
    X.weight_zero_point   of the same shape; packed along the rows in pack-quantized, but for one
    X.weight_shape        (rows, columns) of what is packed in I32
    X.weight_global_scale what the scales of nvfp4 were multiplied by
    X.weight_g_idx        the group of each column, where they are not in order

Which of them a layer has is told by its tensors. Source: the library of the same name, 0.20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.export.checkpoint.base import Checkpoint

from .checkpoint import QuantizedCheckpoint, Weight
from .rows import (
    EIGHT,
    FLOATS,
    SCALES,
    WORDS,
    Rows,
    by_whole,
    consecutive,
    constant,
    integers,
    less,
    nibbles,
    scaled,
    stored,
    unpacked,
)
from .settings import BITS, activations, block_of, check_type, unfit, unknown

__all__ = ["check_compressed", "read_compressed"]

LAYOUTS = (
    *("dense", "mixed-precision", "naive-quantized", "int-quantized", "float-quantized"),
    *("pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"),
)
# Where a rotation is part of the weights; elsewhere it is computed as the model runs.
OFFLINE = ("weight_input", "weight_output")
ZEROS = (*EIGHT, *FLOATS, *WORDS, ir.DataType.INT64)
OTHERS = ("weight_zero_point", "weight_shape", "weight_global_scale", "weight_g_idx")


def read_compressed(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``.

    Raises:
        SourceError: a layout that is not read, sparse ones among them.
        CheckpointError: tensors of a layer that do not fit each other.
    """
    told = check_compressed(config)
    known, weights = checkpoint.names(), {}
    for scale in known:
        layer = scale.removesuffix(".weight_scale")
        if layer == scale:
            continue
        stored_as = [f"{layer}.{name}" for name in ("weight_packed", "weight", *OTHERS)]
        parts = [name for name in stored_as if name in known]
        if parts and parts[0] in stored_as[:2]:
            name = f"{layer}.weight"
            rows = _Layer(checkpoint, layer, parts[0], told).values()
            weights[name] = Weight.of(name, rows, (*parts, scale))
    return QuantizedCheckpoint(checkpoint, weights, activations(known))


@dataclass(frozen=True)
class _Told:
    """What the configuration says of all layers.

    Attributes:
        block: rows and columns that share a scale, of those layers that have blocks.
        group: columns that share one.
        zeros: whether there are zero points.
    """

    block: tuple[int, int] | None
    group: int | None
    zeros: bool


def check_compressed(config: Mapping[str, Any]) -> _Told:
    """What holds for all layers. Raises SourceError for what is not read."""
    sparse = config.get("sparsity_config")
    if isinstance(sparse, Mapping) and sparse.get("format", "dense") != "dense":
        raise unknown("sparsity_config", sparse.get("format"), ["dense"])
    groups = list(_groups(config))
    for layout in (config.get("format"), *(group.get("format") for group in groups)):
        if layout is not None and layout not in LAYOUTS:
            raise unknown("format", layout, LAYOUTS)
    _check_rotations(config.get("transform_config"))
    weights = [each for group in groups if isinstance(each := group.get("weights"), Mapping)]
    blocks = [each.get("block_structure") for each in weights]
    found = {block_of(each) for each in blocks if each is not None}
    group = _shared(weights, "group_size") if _shared(weights, "strategy") == "group" else None
    return _Told(
        found.pop() if len(found) == 1 else None,
        group if type(group) is int and group > 0 else None,
        _shared(weights, "symmetric") is False,
    )


def _shared(weights: Sequence[Mapping[str, Any]], key: str) -> Any:
    """What all groups of layers say alike; None where they do not."""
    said = [each.get(key) for each in weights]
    return said[0] if said and all(each == said[0] for each in said) else None


def _check_rotations(found: Any) -> None:
    """Refuse rotations of what layers read or write: weights were made to go with them."""
    try:
        schemes = (found or {}).get("config_groups", {}).values()
        places = [str(each["location"]) for scheme in schemes for each in scheme["apply"]]
    except (AttributeError, LookupError, TypeError):
        places = [str(found)]
    for place in places:
        if place not in OFFLINE:
            raise unknown("transform_config", place, OFFLINE)


def _groups(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = config.get("config_groups")
    if isinstance(groups, Mapping):
        yield from (group for group in groups.values() if isinstance(group, Mapping))


@dataclass(frozen=True)
class _Layer:
    """A linear layer: its name, that of the tensor with its codes, and what is said of all."""

    checkpoint: Checkpoint
    name: str
    codes: str
    told: _Told

    def values(self) -> Rows:
        """Its weight."""
        scales = self._scales()
        codes, zeros, bits = self._codes_and_zeros(scales.shape)
        self._check(codes.shape[1], scales.shape[1])
        ordered = self._has("weight_g_idx")
        groups = partial(self._groups, codes.shape[1], scales.shape[1]) if ordered else None
        return scaled(
            codes,
            scales,
            where=f"{self.name}.weight",
            zeros=zeros,
            block=self.told.block,
            groups=groups,
            bits=bits,
        )

    def _check(self, columns: int, groups: int) -> None:
        """Refuse tensors that contradict the configuration."""
        if self.told.zeros and not self._has("weight_zero_point"):
            raise unfit(self.name, "no weight_zero_point, of weights that are not symmetric")
        if self.told.group not in (None, -(-columns // groups) if groups else 0):
            found = f"{groups} scales in a row of {columns}"
            raise unfit(self.name, found, [f"group_size of config.json: {self.told.group}"])

    def _codes_and_zeros(self, scales: tuple[int, int]) -> tuple[Rows, Rows | None, int | None]:
        """Codes, zero points where there are any, and the bits of both where they are unsigned."""
        has_zeros = self._has("weight_zero_point")
        if not self.codes.endswith("_packed"):
            zeros = self._stored("weight_zero_point", ZEROS) if has_zeros else None
            return stored(self.checkpoint, self.codes, EIGHT), zeros, None
        info = self.checkpoint.names()[self.codes]
        check_type(self.codes, info.dtype, (*WORDS, ir.DataType.UINT8))
        if info.dtype == ir.DataType.UINT8:
            return nibbles(self.checkpoint, self.codes), None, None
        bits, columns = self._packing(info.shape)
        codes, middle = integers(self.checkpoint, self.codes, bits, columns), 1 << (bits - 1)
        if has_zeros and self._packs_zeros():
            # Both are in offset binary, and one is taken from the other.
            return codes, self._zeros(bits, scales), bits
        if has_zeros:
            return less(codes, middle), self._stored("weight_zero_point", ZEROS), None
        if self._has("weight_g_idx"):
            return codes, constant(scales, middle), bits
        return less(codes, middle), None, None

    def _packs_zeros(self) -> bool:
        """Whether zero points are packed; that of a whole matrix is a signed number."""
        name = f"{self.name}.weight_zero_point"
        info = self.checkpoint.names()[name]
        return info.dtype in WORDS or prod(info.shape) > 1

    def _packing(self, packed: tuple[int, ...]) -> tuple[int, int]:
        """Bits and columns of a weight, of which the last word of a row may have room for more."""
        if not self._has("weight_shape"):
            raise unknown("packed integers without a shape", self.codes, ["X.weight_shape"])
        shape = [int(size) for size in self._read("weight_shape").reshape(-1)[-2:]]
        if len(packed) < 2 or len(shape) < 2:
            raise unfit(self.codes, f"shape {packed} and weight_shape {shape}", ["two sizes each"])
        columns, words = shape[1], packed[-1]
        for bits in BITS:
            if words == -(-columns * bits // 32):
                if shape[0] != packed[-2]:
                    found = f"{packed[-2]} rows, of which weight_shape has {shape[0]}"
                    raise unfit(self.codes, found)
                return bits, columns
        raise unknown(
            "number of bits", f"{columns} integers in {words} words", [str(each) for each in BITS]
        )

    def _zeros(self, bits: int, scales: tuple[int, int]) -> Rows:
        """Packed along the rows: eight or four of them in a word of a group's."""
        name, each = f"{self.name}.weight_zero_point", 32 // bits
        info = self.checkpoint.names()[name]
        check_type(name, info.dtype, WORDS)
        if info.shape != (-(-scales[0] // each), scales[1]):
            raise unfit(name, f"shape {info.shape} of scales {scales}", [f"{each} rows in one"])

        def read(start: int, stop: int) -> np.ndarray:
            words = self._read("weight_zero_point")[start // each : -(-stop // each)]
            codes = unpacked(np.ascontiguousarray(words.T).view(np.uint8), bits)
            first = start // each * each
            return codes[:, start - first : stop - first].T.astype(np.float32)

        return Rows(scales, read)

    def _scales(self) -> Rows:
        scales = self._stored("weight_scale", SCALES)
        if not self._has("weight_global_scale"):
            return scales
        return by_whole(np.divide, scales, self.checkpoint, f"{self.name}.weight_global_scale")

    def _groups(self, columns: int, groups: int) -> np.ndarray:
        found = self._read("weight_g_idx")
        if (found == -1).all():  # made, and never filled in: columns are in order
            return consecutive(columns, groups)
        return found

    def _has(self, part: str) -> bool:
        return f"{self.name}.{part}" in self.checkpoint.names()

    def _stored(self, part: str, kinds: Sequence[ir.DataType]) -> Rows:
        return stored(self.checkpoint, f"{self.name}.{part}", kinds)

    def _read(self, part: str) -> np.ndarray:
        return self.checkpoint.tensor(f"{self.name}.{part}").numpy()
