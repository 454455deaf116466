"""Mixtures of experts, met through transformers' own interface and refused by name.

Without this the reason would be the first op of the router that has no translation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lepton_compile.errors import ExportError

__all__ = ["ExpertsError", "refusing_experts"]

_NAME = "lepton"


class ExpertsError(ExportError):
    """The model has experts: no way of capturing it helps."""


@contextmanager
def refusing_experts(model: nn.Module) -> Iterator[None]:
    """Whoever calls experts while the context is open is told that they are not supported."""
    from transformers.integrations.moe import ExpertsInterface

    ExpertsInterface.register(_NAME, _refuse)
    found: list[Any] = [m.config for m in model.modules() if hasattr(m, "config")]
    configs = {id(config): config for config in found}
    before = {key: getattr(c, "_experts_implementation", None) for key, c in configs.items()}
    for key, config in configs.items():
        if before[key] is not None:
            config._experts_implementation = _NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            if before[key] is not None:
                config._experts_implementation = before[key]


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise ExpertsError("mixtures of experts are not supported in this version")
