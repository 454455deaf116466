"""The launch contract: which kernels run when, with which arguments, on which grid.

Python launcher, IPluginV3 and the ahead-of-time plugin all read this; nothing else says it again.

    sequence > DECODE_SEQUENCE    append -> prefill
    otherwise                     decode -> combine      decode appends its own rows, in place

Arguments are passed in the order inputs, scalars, outputs (what TensorRT's ahead-of-time plugins
demand); scalars are int32; an input that the variant lacks (``sinks``) is left out. ``key_cache``
and ``present_key`` are one address, passed twice, and so are the values'. ``partial`` and
``partial_lse`` lie in the workspace. Any ``splits >= 1`` gives right results, as long as scalar,
grid and partials agree: ``decode_splits`` only says which is fast. The decode kernel divides the
keys that a row really has among its splits, so that the grid depends on the capacity and never on
``past_lengths``.

Pointers other than ``past_lengths`` and ``sinks`` are aligned to 16 bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from lepton_plugins.attention.tiles import Tiles
from lepton_plugins.attention.variant import Variant

__all__ = [
    "DECODE_SEQUENCE",
    "KERNELS",
    "WORKSPACE_ALIGNMENT",
    "Axis",
    "Kernel",
    "Workspace",
    "arguments",
    "decode_splits",
    "dimensions",
    "grid",
    "steps",
    "workspace",
]

# Up to so many new tokens a row, the decode path is the faster one.
DECODE_SEQUENCE = 16
WORKSPACE_ALIGNMENT = 256
_MAX_SPLITS = 128  # a model with one key head has no other blocks for a large device
_MIN_KEYS = 64  # fewer keys a split cost more in the combine step than they save


@dataclass(frozen=True)
class Axis:
    """``ceil(product of factors / divisor)``; names are those that ``dimensions`` gives."""

    factors: tuple[str, ...]
    divisor: str | None = None

    def of(self, sizes: Mapping[str, int]) -> int:
        """The size; any type with ``*``, ``+`` and ``//`` will do, so also a symbolic one."""
        size = sizes[self.factors[0]]
        for name in self.factors[1:]:
            size = size * sizes[name]
        if self.divisor is None:
            return size
        block = sizes[self.divisor]
        return (size + (block - 1)) // block


@dataclass(frozen=True)
class Kernel:
    """One kernel: the name of its entry, its arguments in order, and its grid."""

    entry: str
    inputs: tuple[str, ...]
    scalars: tuple[str, ...]
    outputs: tuple[str, ...]
    grid: tuple[Axis, Axis, Axis]


_CACHES = ("key_cache", "value_cache")
_PRESENT = ("present_key", "present_value")
_PARTIAL = ("partial", "partial_lse")
_HEADS, _BATCH = Axis(("kv_num_heads",)), Axis(("batch",))
_ROWS = ("sequence", "group")  # the heads of a group are rows of one tile

KERNELS: dict[str, Kernel] = {
    "append": Kernel(
        entry="lepton_attention_append",
        inputs=("key", "value", "past_lengths", *_CACHES),
        scalars=("sequence", "capacity"),
        outputs=_PRESENT,
        grid=(Axis(("sequence",), "block_m"), _HEADS, _BATCH),
    ),
    "prefill": Kernel(
        entry="lepton_attention_prefill",
        inputs=("query", "past_lengths", *_CACHES, "sinks"),
        scalars=("sequence", "capacity"),
        outputs=("output",),
        grid=(Axis(_ROWS, "block_m"), _HEADS, _BATCH),
    ),
    "decode": Kernel(
        entry="lepton_attention_decode",
        inputs=("query", "key", "value", "past_lengths", *_CACHES),
        scalars=("sequence", "capacity", "splits"),
        outputs=(*_PRESENT, *_PARTIAL),
        grid=(Axis(("splits",)), Axis(("row_tiles", "kv_num_heads")), _BATCH),
    ),
    "combine": Kernel(
        entry="lepton_attention_combine",
        inputs=(*_PARTIAL, "sinks"),
        scalars=("sequence", "splits"),
        outputs=("output",),
        grid=(Axis(_ROWS), _HEADS, _BATCH),
    ),
}


@dataclass(frozen=True)
class Workspace:
    """Where the partial results of a decode step lie, in bytes from the workspace's start.

    ``partial`` is float32 (batch, kv_num_heads, splits, sequence * group, head_dim), each row
    already divided by its sum; ``partial_lse`` is float32 without the last dimension: the base-2
    logarithm of that sum.
    """

    partial: int
    partial_lse: int
    size: int


def steps(sequence: int) -> tuple[str, ...]:
    """The kernels that run, in order, for ``sequence`` new tokens a row."""
    return ("append", "prefill") if sequence > DECODE_SEQUENCE else ("decode", "combine")


def arguments(kernel: str, variant: Variant) -> tuple[str, ...]:
    """Names of the kernel's arguments, in the order of its parameters."""
    spec = KERNELS[kernel]
    inputs = (name for name in spec.inputs if name != "sinks" or variant.sinks)
    return (*inputs, *spec.scalars, *spec.outputs)


def dimensions(
    variant: Variant, tiles: Tiles, *, batch: int, sequence: int, capacity: int, splits: int = 1
) -> dict[str, int]:
    """Every name that an axis or a scalar can ask for."""
    block = tiles.block_m
    return {
        "batch": batch,
        "sequence": sequence,
        "capacity": capacity,
        "splits": splits,
        "kv_num_heads": variant.kv_num_heads,
        "group": variant.group,
        "block_m": block,
        "row_tiles": (sequence * variant.group + (block - 1)) // block,
    }


def grid(kernel: str, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """The kernel's grid for these ``dimensions``."""
    x, y, z = (axis.of(sizes) for axis in KERNELS[kernel].grid)
    return x, y, z


@functools.lru_cache(maxsize=4096)  # asked for at every launch
def decode_splits(
    variant: Variant, tiles: Tiles, *, batch: int, sequence: int, capacity: int, processors: int
) -> int:
    """Into how many parts the decode kernel should cut each row's keys.

    Blocks run in waves of two for each of the device's ``processors``. The fewest splits are taken
    whose last wave is nearly as full as that of the best choice.
    """
    keys = capacity if variant.window < 0 else min(capacity, variant.window + sequence)
    most = max(1, min(_MAX_SPLITS, keys // _MIN_KEYS))
    row_tiles = -(-sequence * variant.group // tiles.block_m)
    blocks, slots = batch * variant.kv_num_heads * row_tiles, 2 * processors

    def busy(splits: int) -> float:
        waves = -(-blocks * splits // slots)
        return blocks * splits / (waves * slots)

    best = max(busy(splits) for splits in range(1, most + 1))
    return next(splits for splits in range(1, most + 1) if busy(splits) >= 0.9 * best)


def workspace(variant: Variant, *, batch: int, sequence: int, splits: int) -> Workspace:
    """Layout of the partial results; of size 0 where the prefill path runs."""
    if sequence > DECODE_SEQUENCE:
        return Workspace(0, 0, 0)
    rows = batch * variant.q_num_heads * splits * sequence
    partial = _aligned(rows * variant.head_dim * 4)
    return Workspace(0, partial, partial + _aligned(rows * 4))


def _aligned(size: int) -> int:
    return -(-size // WORKSPACE_ALIGNMENT) * WORKSPACE_ALIGNMENT
