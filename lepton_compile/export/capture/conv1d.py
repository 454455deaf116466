"""GPT-2's ``Conv1D`` is a linear layer with its weight stored (in, out); trace it as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from lepton_compile.export.meta import modules_of

__all__ = ["capture_conv1d"]


@contextmanager
def capture_conv1d(model: nn.Module) -> Iterator[None]:
    """Replace the forward of each ``Conv1D``, which would flatten the batch to two axes."""
    layers = [module for _, module in modules_of(model) if isinstance(module, Conv1D)]
    for layer in layers:
        layer.forward = _forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: Conv1D):  # type: ignore[no-untyped-def]
    def forward(x: Tensor) -> Tensor:
        return functional.linear(x, layer.weight.t(), layer.bias)

    return forward
