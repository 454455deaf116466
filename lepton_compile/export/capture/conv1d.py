"""GPT-2's ``Conv1D`` is a linear layer with its weight stored (in, out); trace it as one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from lepton_compile.export.meta import modules_of
from lepton_compile.export.swapped import swapped

__all__ = ["capture_conv1d"]


def capture_conv1d(model: nn.Module) -> AbstractContextManager[None]:
    """Replace the forward of each ``Conv1D``, which would flatten the batch to two axes."""
    layers = [module for _, module in modules_of(model) if isinstance(module, Conv1D)]
    return swapped(*((layer, "forward", _forward(layer)) for layer in layers))


def _forward(layer: Conv1D):  # type: ignore[no-untyped-def]
    def forward(x: Tensor) -> Tensor:
        return functional.linear(x, layer.weight.t(), layer.bias)

    return forward
