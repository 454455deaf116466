"""Tile sizes: how large a block of work each kernel takes, by architecture and head dimension.

Sizes follow from what a tile must hold. A prefill tile keeps ``block_m x head_dim`` sums in
registers and ``num_stages`` tiles of keys and of values in shared memory; a decode tile has one
tensor-core row tile and lives on having enough bytes in flight. ``toolchain`` measures registers,
spills and shared memory of what comes out, and a test holds every entry here to that.
"""

from __future__ import annotations

from dataclasses import dataclass

from lepton_plugins.attention.variant import DTYPE_BYTES, Variant
from lepton_plugins.spec import PluginError

__all__ = ["ARCHITECTURES", "Architecture", "Tiles", "architecture", "head_chunks", "tiles_for"]


@dataclass(frozen=True)
class Architecture:
    """A compute capability, as far as the kernels' choices depend on it."""

    name: int  # 90 for compute capability 9.0
    processors: int  # of the usual device of this kind; used for the number of splits
    shared_bytes: int  # a block may use, after opting in
    fp8: bool  # has instructions that convert e4m3
    wide: bool  # tensor cores that read both operands from shared memory


ARCHITECTURES: dict[int, Architecture] = {
    80: Architecture(80, 108, 166912, fp8=False, wide=False),
    86: Architecture(86, 84, 101376, fp8=False, wide=False),
    89: Architecture(89, 128, 101376, fp8=True, wide=False),
    90: Architecture(90, 132, 232448, fp8=True, wide=True),
    100: Architecture(100, 148, 232448, fp8=True, wide=True),
    120: Architecture(120, 170, 101376, fp8=True, wide=False),
}


@dataclass(frozen=True)
class Tiles:
    """``block_m`` rows (tokens, in append) and ``block_n`` keys (splits, in combine) a step."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def architecture(name: int) -> Architecture:
    """What is known about compute capability ``name``.

    Raises:
        PluginError: the kernels are not made for it.
    """
    if name not in ARCHITECTURES:
        raise PluginError(
            "no kernels for this compute capability",
            found=str(name),
            available=tuple(map(str, ARCHITECTURES)),
        )
    return ARCHITECTURES[name]


def head_chunks(head_dim: int) -> tuple[int, int]:
    """Two powers of two that cover a row; the second is 0 where one does.

    80 is 64 + 16 and 320 is 256 + 64, where padding to one power would add half as much again.
    """
    first = 1 << (head_dim.bit_length() - 1)
    rest = head_dim - first
    return first, (1 << (rest - 1).bit_length() if rest else 0)


def tiles_for(kernel: str, arch: int, variant: Variant) -> Tiles:
    """The tile sizes of ``kernel`` for ``variant`` on compute capability ``arch``.

    Raises:
        PluginError: no kernels for this architecture.
    """
    target = architecture(arch)
    choose = {"append": _append, "prefill": _prefill, "decode": _decode, "combine": _combine}
    return choose[kernel](target, variant)


def _padded(variant: Variant) -> int:
    return sum(head_chunks(variant.head_dim))


def _append(target: Architecture, variant: Variant) -> Tiles:
    return Tiles(max(1, 2048 // (1 << (variant.head_dim - 1).bit_length())), 1, 4, 1)


def _combine(target: Architecture, variant: Variant) -> Tiles:
    # As many splits at once as the registers hold: each further step waits for memory anew.
    width = 1 << (variant.head_dim - 1).bit_length()
    return Tiles(1, 64, 4, 1) if width <= 128 else Tiles(1, 16384 // width, 8, 1)


def _prefill(target: Architecture, variant: Variant) -> Tiles:
    width = _padded(variant)
    if target.name == 90 and (width <= 64 or (variant.quantized and variant.head_dim == 256)):
        # Two small blocks share a processor: one multiplies while the other takes exponentials.
        return Tiles(64, 64, 4, 3)
    if target.wide and width <= 384:
        if width <= 128:
            return Tiles(128, 128 if width <= 64 else 64, 8, 3)
        if width <= 256:  # quantized rows are converted in registers
            return Tiles(128, 32 if variant.quantized and width > 192 else 64, 8, 2)
        return Tiles(64, 32, 8, 1 if variant.quantized else 2)
    if width <= 128:
        return Tiles(128, 64 if width <= 64 else 32, 8, 3)
    if width <= 256:  # a row in two chunks takes more registers
        return Tiles(64, 16 if head_chunks(variant.head_dim)[1] else 32, 8, 2)
    # Beyond 256 the sums of 32 rows are what the registers hold without spilling.
    return Tiles(32, 32, 8, 1)


def _decode(target: Architecture, variant: Variant) -> Tiles:
    width, large = _padded(variant), target.shared_bytes > 128 * 1024
    row = width * DTYPE_BYTES[variant.cache_dtype]
    # About 16 KB of keys a step; more than 64 quantized ones fill the registers when converted,
    # more than 32 where such a row is in two chunks.
    crowded = head_chunks(variant.head_dim)[1] > 0 and not large
    most = (32 if crowded else 64) if variant.quantized else 128
    keys = min(most, 16384 // (1 << (row - 1).bit_length()))
    stages = 3 if large else 2
    rows = max(16, 1 << (variant.group - 1).bit_length())
    return Tiles(min(rows, 64), max(16, keys), 4, stages)
