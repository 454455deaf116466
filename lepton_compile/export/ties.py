"""Weights that a configuration ties, and a checkpoint has twice with other numbers.

T5 1.1 (FLAN-T5) was trained with a head of its own; transformers says that it is tied, and goes by
the file all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from lepton_passes.tensors import rows_of

from .checkpoint import Checkpoint
from .weights import stored_names

__all__ = ["part", "tied_of", "untie"]

ROWS = 4096  # that are compared at a time


def tied_of(network: nn.Module) -> dict[str, str]:
    """Parameters that share the weight of another, and that one."""
    tied = getattr(network, "all_tied_weights_keys", None)
    return dict(tied) if isinstance(tied, dict) else {}


def untie(network: Any, checkpoint: Checkpoint, rename: Callable[[str], str]) -> list[str]:
    """Give parameters of their own to those of ``network`` that the checkpoint has with other
    numbers than what they are tied to. Returns their names.

    Where a file has one weight twice, both are read.
    """
    if not (tied := tied_of(network)):
        return []
    stored = stored_names({*tied, *tied.values()}, checkpoint, network, rename)
    found = []
    for name, other in tied.items():
        mine, theirs = stored.get(name), stored.get(other)
        if mine is None or theirs is None or mine == theirs:
            continue
        if not _equal(checkpoint.tensor(mine), checkpoint.tensor(theirs)):
            part(network, name)
            found.append(name)
    return found


def part(network: Any, name: str) -> None:
    """Give a tied parameter a weight of its own."""
    path, _, own = name.rpartition(".")
    alone = nn.Parameter(torch.empty_like(network.get_parameter(name)), requires_grad=False)
    setattr(network.get_submodule(path), own, alone)
    del network.all_tied_weights_keys[name]


def _equal(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    shape = one.shape.numpy()
    if shape != other.shape.numpy() or not shape:
        return False
    starts = range(0, int(shape[0]), ROWS)
    ends = ((start, min(start + ROWS, int(shape[0]))) for start in starts)
    return all(np.array_equal(rows_of(one, *each), rows_of(other, *each)) for each in ends)
