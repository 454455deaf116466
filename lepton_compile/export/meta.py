"""Build a model without its weights.

Parameters live on the meta device from the start. Buffers (position ids, inverse frequencies) are
small and are not in the checkpoint, so they are computed for real and kept aside before the model
moves to the meta device as a whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lepton_compile.errors import ExportError

__all__ = ["build", "check_layers", "code_of", "configs_of", "modules_of", "real_buffers"]

# A real tensor of more elements is no buffer of a model, but a mistaken size in its configuration.
LARGEST = 1 << 28
# A vector of more is as wide as no model: rows of that width are computed with to tell norms apart.
WIDEST = 1 << 22
_MAKERS = (torch.ones, torch.zeros, torch.full, torch.rand, torch.randn)


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
        elif _elements(func, args) > LARGEST:
            raise _too_large(f"{_elements(func, args):,} elements", LARGEST)
        return func(*args, **kwargs)


def _too_large(found: str, most: int, where: str | None = None) -> ExportError:
    return ExportError(
        "the configuration asks for a tensor that no model has",
        where=where,
        found=found,
        available=[f"up to {most:,}"],
        hint="look for a size in config.json that is far too large",
    )


def _elements(func: Callable[..., Any], args: Any) -> int:
    """How many elements a function that makes tensors is asked for; 0 for any other."""
    if func is torch.arange:
        first, last, step = {1: (0, *args, 1), 2: (*args, 1)}.get(len(args), args[:3] or (0, 0, 1))
        return int((last - first) // step)
    if func not in _MAKERS or not args:
        return 0
    sizes = args[0] if isinstance(args[0], list | tuple) else args
    return prod(size for size in sizes if isinstance(size, int))


def check_layers(config: Any) -> None:
    """Refuse a model without layers: those that its checkpoint has would be taken for the heads of
    other tasks, and left out. A model of two halves may have one that is empty.

    Raises:
        ExportError: there are none.
    """
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    if not config.is_encoder_decoder and isinstance(count, int) and count < 1:
        raise ExportError(
            "the model has no layers",
            where="num_hidden_layers of its configuration",
            found=str(count),
            hint="compare the configuration with the one that the model was released with",
        )


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """Call ``make`` (such as ``AutoModel.from_config``) and return its model on the meta device.

    Each module keeps the values of its own buffers in ``_lepton_buffers``.
    """
    from transformers.initialization import no_init_weights

    with _EmptyOnMeta(), no_init_weights():
        model: Any = make().eval()
    model.tie_weights()  # which is part of giving weights their first values
    for path, module in modules_of(model):
        _check_widths(path, module)
        _move(module)
    built: nn.Module = model
    return built


def _check_widths(path: str, module: nn.Module) -> None:
    for name, weight in module._parameters.items():
        if weight is not None and weight.ndim == 1 and len(weight) > WIDEST:
            raise _too_large(f"a vector of {len(weight):,}", WIDEST, f"{path}.{name}")


def _move(module: nn.Module) -> None:
    """A module's own weights to the meta device, with the values of its own buffers kept."""
    weights = [weight for weight in module._parameters.values() if weight is not None]
    buffers = {name: b for name, b in module._buffers.items() if b is not None and not b.is_meta}
    for weight in weights:
        weight.requires_grad_(False)
    if buffers or not all(weight.is_meta for weight in weights):
        module.__dict__["_lepton_buffers"] = buffers
        move: Any = module._apply
        move(lambda tensor: tensor.to("meta"), recurse=False)


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What ``named_modules`` gives, each module once, in a fifth of its time."""
    found: dict[int, tuple[str, nn.Module]] = {}
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = (path, module)
            below = f"{path}." if path else ""
            children = [(below + name, m) for name, m in module._modules.items() if m is not None]
            waiting += reversed(children)
    return list(found.values())


def code_of(model: nn.Module) -> list[ModuleType]:
    """The modules of Python that have the code of a model, by name."""
    names = {type(module).__module__ for _, module in modules_of(model)}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


def configs_of(model: nn.Module) -> list[Any]:
    """The configurations of a model and its parts, each once."""
    found = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return list(found.values())


def real_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Values of all buffers by their full name."""
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in modules_of(model)
        for name, buffer in module.__dict__.get("_lepton_buffers", {}).items()
    }
