"""Convolutions over whole patches, which are cut before they come: linear layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["convolved"]


def convolved(kernel: nn.Conv2d | nn.Conv3d, numbers: Tensor) -> Tensor:
    """(.., width) of what a kernel covers at once, (.., numbers), in the order of its weights."""
    return functional.linear(numbers, kernel.weight.flatten(1), kernel.bias)
