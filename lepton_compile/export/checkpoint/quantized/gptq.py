"""GPTQ (Frantar et al., arXiv:2210.17323) in the layout of AutoGPTQ and GPTQModel.

X.qweight  I32 (columns / 8, rows), of 4 bits: eight columns of a row in a word
X.qzeros   I32 (groups, rows / 8), each zero point less one, but for `gptq_v2`: taken off the whole
           word, where a zero point of 0 borrows from the next
X.scales   (groups, rows)
X.g_idx    I32 (columns,), the group of each column; those of the last may be fewer
X.weight   what the model has: (rows, columns), (q - zero) * scale
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_compile.export.checkpoint.base import Checkpoint

from .checkpoint import QuantizedCheckpoint, Weight
from .columns import LastRead
from .rows import FLOATS, WORDS, Rows, consecutive, scaled, unpacked
from .settings import bits_of, check_type, unfit, unknown

__all__ = ["check_gptq", "read_gptq"]

LAYOUTS = {"gptq": 1, "gptq_v2": 0}  # what a zero point is stored less
PARTS = {"qweight": WORDS, "qzeros": WORDS, "scales": FLOATS}


@dataclass(frozen=True)
class _Layout:
    """What the configuration says of all layers.

    Attributes:
        bits: of a code.
        less: what a zero point is stored less.
        group: columns that share a scale; 0 where it does not say, or a row shares one.
    """

    bits: int
    less: int
    group: int


def check_gptq(config: Mapping[str, Any]) -> _Layout:
    """What the configuration says. Raises SourceError."""
    layout = config.get("checkpoint_format") or config.get("format") or "gptq"
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise unknown("checkpoint_format", layout, LAYOUTS)
    group = config.get("group_size")
    if group is not None and type(group) is not int:
        raise unknown("group_size", group, ["a number of columns, or -1"])
    return _Layout(bits_of(config.get("bits")), LAYOUTS[layout], max(group or 0, 0))


def read_gptq(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``.

    Raises:
        SourceError: another number of bits than 4 or 8, another layout.
        CheckpointError: tensors of a layer that do not fit each other.
    """
    layout, last = check_gptq(config), LastRead()
    weights = {}
    for packed in checkpoint.names():
        layer = packed.removesuffix(".qweight")
        if layer != packed:
            stored_as = _Layer(checkpoint, layer, layout, last)
            name = f"{layer}.weight"
            weights[name] = Weight.of(name, stored_as.values(), stored_as.parts())
    return QuantizedCheckpoint(checkpoint, weights)


class _Layer:
    """A linear layer, by its name."""

    def __init__(self, checkpoint: Checkpoint, name: str, layout: _Layout, last: LastRead) -> None:
        self._checkpoint, self._name, self._last = checkpoint, name, last
        self._bits, self._less, self._group = layout.bits, layout.less, layout.group

    def parts(self) -> list[str]:
        """Names of the tensors it is stored as."""
        known = self._checkpoint.names()
        names = (f"{self._name}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
        return [name for name in names if name in known]

    def values(self) -> Rows:
        """Its weight."""
        each = 32 // self._bits
        words, rows = self._shape("qweight", 2)
        groups = self._shape("scales", 2)[0]
        if self._shape("scales", 2)[1] != rows or self._shape("qzeros", 2) != (
            groups,
            -(-rows // each),
        ):
            raise unfit(self._name, "qzeros and scales of other shapes than qweight tells")
        columns = words * each
        ordered = f"{self._name}.g_idx" in self._checkpoint.names()
        if ordered and self._shape("g_idx", 1) != (columns,):
            raise unfit(self._name, "another number of columns in g_idx than in qweight")
        for part, kinds in PARTS.items():
            name = f"{self._name}.{part}"
            check_type(name, self._checkpoint.names()[name].dtype, kinds)
        return scaled(
            Rows((rows, columns), self._codes),
            Rows((rows, groups), self._scales),
            where=f"{self._name}.weight",
            zeros=Rows((rows, groups), self._zeros),
            block=(1, self._group) if self._fits(columns, groups) else None,
            groups=self._groups if ordered else None,
            bits=self._bits,
        )

    def _fits(self, columns: int, groups: int) -> bool:
        """Whether the group of the configuration is this layer's: some have one of their own."""
        return self._group > 0 and -(-columns // self._group) == groups

    def _codes(self, start: int, stop: int) -> np.ndarray:
        words = self._last.array(self._checkpoint.tensor(f"{self._name}.qweight"))
        rows = np.ascontiguousarray(words[:, start:stop].T).view(np.uint8)
        return unpacked(rows, self._bits).astype(np.float32)

    def _zeros(self, start: int, stop: int) -> np.ndarray:
        words = self._read("qzeros").view(np.uint32)
        ones = np.uint32(self._less * (0xFFFFFFFF // (2**self._bits - 1)))
        found = unpacked((words + ones).view(np.uint8), self._bits)
        return found[:, start:stop].T.astype(np.float32)

    def _scales(self, start: int, stop: int) -> np.ndarray:
        return self._read("scales")[:, start:stop].T.astype(np.float32)

    def _groups(self) -> np.ndarray:
        found, groups = self._read("g_idx"), self._shape("scales", 2)[0]
        if found.any():
            return found
        # Never filled in: columns are in order.
        if self._fits(len(found), groups):
            return np.arange(len(found)) // self._group
        return consecutive(len(found), groups)

    def _read(self, part: str) -> np.ndarray:
        return self._checkpoint.tensor(f"{self._name}.{part}").numpy()

    def _shape(self, part: str, axes: int) -> tuple[int, ...]:
        info = self._checkpoint.names().get(f"{self._name}.{part}")
        if info is None or len(info.shape) != axes:
            raise unfit(
                self._name, f"no {part}" if info is None else f"{part} of shape {info.shape}"
            )
        return info.shape
