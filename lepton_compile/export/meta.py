"""Build a model without its weights.

Parameters live on the meta device from the start. Buffers (position ids, inverse frequencies) are
small and are not in the checkpoint, so they are computed for real and kept aside before the model
moves to the meta device as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["build", "real_buffers"]


class _EmptyOnMeta(TorchFunctionMode):
    """``torch.empty`` allocates on the meta device; everything else stays real.

    Modules allocate parameters with ``empty`` and compute buffers with the rest.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """Call ``make`` (such as ``AutoModel.from_config``) and return its model on the meta device.

    Each module keeps the values of its own buffers in ``_lepton_buffers``.
    """
    with _EmptyOnMeta():
        model = make().eval()
    for module in model.modules():
        kept = {n: b for n, b in module.named_buffers(recurse=False) if b.device.type != "meta"}
        module.__dict__["_lepton_buffers"] = kept
    model.requires_grad_(False)
    return model.to("meta")


def real_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Values of all buffers by their full name."""
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in model.named_modules()
        for name, buffer in module.__dict__.get("_lepton_buffers", {}).items()
    }
