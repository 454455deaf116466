"""A compiler for tests of plugins, that compiles nothing: the names of what it was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_plugins.attention.launch import KERNELS
from lepton_plugins.attention.variant import Variant


@dataclass(frozen=True)
class Kernel:
    """In place of a compiled kernel."""

    entry: str
    ptx: str
    num_warps: int
    shared: int


def kernel_of(kernel: str, variant: Variant, architecture: int) -> Kernel:
    """``ptx`` is what it would be compiled from."""
    return Kernel(KERNELS[kernel].entry, f"{kernel} {variant.key} {architecture}", 4, 1024)
