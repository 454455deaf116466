"""AWQ (Lin et al., arXiv:2306.00978) in the layout that AutoAWQ calls GEMM, 4 bits.

X.qweight  I32 (columns, rows / 8): eight rows of a column in a word, in the order ORDER
X.qzeros   I32 (groups, rows / 8), in the same order
X.scales   (groups, rows)
X.weight   what the model has: (rows, columns), (q - zero) * scale
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.export.checkpoint.base import Checkpoint

from .checkpoint import QuantizedCheckpoint, Weight
from .columns import LastRead
from .rows import FLOATS, WORDS, Rows, scaled
from .settings import check_type, unfit, unknown

__all__ = ["check_awq", "read_awq"]

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
EACH = 8  # rows in a word
PARTS = {"qweight": WORDS, "qzeros": WORDS, "scales": FLOATS}
SHAPES = "qweight (columns, rows / 8), qzeros (groups, rows / 8), scales (groups, rows)"


def check_awq(config: Mapping[str, Any]) -> None:
    """Refuse another number of bits than 4, and another layout. Raises SourceError."""
    layout = str(config.get("version") or config.get("format") or "gemm").lower()
    if layout != "gemm":
        raise unknown("version", layout, ["gemm"])
    if config.get("bits", config.get("w_bit")) != 4:
        raise unknown("number of bits", config.get("bits", config.get("w_bit")), ["4"])


def read_awq(checkpoint: Checkpoint, config: Mapping[str, Any]) -> QuantizedCheckpoint:
    """The values of ``checkpoint``.

    Raises:
        SourceError: another number of bits than 4, another layout, scales of activations.
        CheckpointError: tensors of a layer that do not fit each other.
    """
    check_awq(config)
    last, weights = LastRead(), {}
    for packed in checkpoint.names():
        if packed.endswith(".act.scales"):  # what the activation is divided by, not a weight's
            raise unknown("scales of an activation function", packed, ["those of weights"])
        layer = packed.removesuffix(".qweight")
        if layer != packed:
            rows, parts = _values(checkpoint, layer, last), [f"{layer}.{part}" for part in PARTS]
            weights[f"{layer}.weight"] = Weight.of(f"{layer}.weight", rows, parts)
    return QuantizedCheckpoint(checkpoint, weights)


def _values(checkpoint: Checkpoint, layer: str, last: LastRead) -> Rows:
    known = checkpoint.names()
    shapes = [known[n].shape if (n := f"{layer}.{part}") in known else () for part in PARTS]
    weight, zeros, scales = shapes
    if len(weight) != 2 or len(scales) != 2 or zeros != (scales[0], weight[1]):
        raise unfit(layer, _told(shapes), [SHAPES])
    columns, rows = weight[0], weight[1] * EACH
    if scales[1] != rows:
        raise unfit(layer, _told(shapes), [SHAPES])
    for part, kinds in PARTS.items():
        check_type(f"{layer}.{part}", known[f"{layer}.{part}"].dtype, kinds)

    def codes(start: int, stop: int) -> np.ndarray:
        return _rows(last.array(checkpoint.tensor(f"{layer}.qweight")), start, stop)

    def zero(start: int, stop: int) -> np.ndarray:
        return _rows(checkpoint.tensor(f"{layer}.qzeros").numpy(), start, stop)

    def scale(start: int, stop: int) -> np.ndarray:
        found = checkpoint.tensor(f"{layer}.scales").numpy()
        return found[:, start:stop].T.astype(np.float32)

    grid = (rows, scales[0])
    return scaled(
        Rows((rows, columns), codes),
        Rows(grid, scale),
        where=f"{layer}.weight",
        zeros=Rows(grid, zero),
        bits=4,
    )


def _rows(words: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows of what is packed (columns, rows / 8)."""
    first = start // EACH
    part = np.ascontiguousarray(words[:, first : -(-stop // EACH)].T).view(np.uint32)
    values = np.empty((len(part) * EACH, len(words)), dtype=np.float32)
    for place, row in enumerate(ORDER):
        values[row::EACH] = part >> (4 * place) & 0x0F
    return values[start - first * EACH : stop - first * EACH]


def _told(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(f"{part} {shape}" for part, shape in zip(PARTS, shapes, strict=True))
