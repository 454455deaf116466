"""Weights that a checkpoint may leave out, because the model's own code makes them.

The positions of Marian are sines of their places, and no file has them: transformers makes them as
it gives a new model its first values. So do we, module by module.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

import onnx_ir as ir
import torch
from torch import Tensor, nn

from lepton_passes.tensors import StreamedTensor

__all__ = ["made_weights"]


def made_weights(network: nn.Module, names: Iterable[str]) -> dict[str, StreamedTensor]:
    """Tensors, by parameter, of those of ``names`` that the model says may be missing.

    One that comes out differently each time is drawn, not made, and left out.
    """
    may = getattr(network, "_keys_to_ignore_on_load_missing", None) or []
    known = re.compile("|".join(may)) if may else None
    found = {}
    for name in names:
        if known is not None and known.search(name):
            first, second = (_made(network, name, seed) for seed in (0, 1))
            if first is not None and second is not None and torch.equal(first, second):
                found[name] = _streamed(name, first)
    return found


def _streamed(name: str, value: Tensor) -> StreamedTensor:
    rows = value.numpy()
    return StreamedTensor(name, ir.DataType.FLOAT, rows.shape, lambda a, b: rows[a:b])


def _made(network: nn.Module, name: str, seed: int) -> Tensor | None:
    """What the model fills one of its parameters with, first filled with something else."""
    path, _, own = name.rpartition(".")
    module = copy.copy(network.get_submodule(path))
    like = module._parameters.get(own)
    initialize = getattr(network, "_init_weights", None)
    if like is None or initialize is None:
        return None
    filled = torch.full(like.shape, float("nan") if seed else -1.0, dtype=torch.float32)
    module._parameters = {**module._parameters, own: nn.Parameter(filled, requires_grad=False)}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        initialize(module)
    return module._parameters[own].detach()  # type: ignore[union-attr]
