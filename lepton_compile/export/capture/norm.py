"""RMS norms, and layer norms written out, told from their numbers.

A candidate is any module with one 1-D parameter or none, no children and an epsilon. The real
module runs on random numbers and is compared with ``x / rms(x) * (offset + w)``, offset 0 (Llama)
or 1 (Gemma), and with the same of ``x - mean(x)``, offset 0 (Cohere). Without a parameter w is 1,
as of the values of Gemma 4.
RMSNorm: Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton
from lepton_compile.export.meta import modules_of
from lepton_compile.export.swapped import swapped

from .probe import outside_trace, real_copy

__all__ = ["capture_norms", "replaced"]

V = TypeVar("V")


@dataclass(frozen=True)
class _Variant:
    """What is added to the weight, and whether the mean is taken off."""

    offset: float
    centered: bool = False

    def of(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """The norm by its definition."""
        if self.centered:
            x = x - x.mean(-1, keepdim=True)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * (self.offset + weight)


_VARIANTS = (_Variant(0.0), _Variant(1.0), _Variant(0.0, centered=True))
_WIDTH = 24
"""Of numbers that a norm without a parameter is tried on."""


@contextmanager
def capture_norms(model: nn.Module) -> Iterator[int]:
    """Replace the forward of every recognised norm; yields how many there are."""
    with replaced(model, _settle, _forward, gated=False) as count:
        yield count


@contextmanager
def replaced(
    model: nn.Module,
    settle: Callable[[nn.Module, float], V | None],
    forward: Callable[[nn.Module, float, V], Callable[..., Tensor]],
    *,
    gated: bool,
) -> Iterator[int]:
    """Replace the forward of the norms that ``settle`` knows; yields how many there are.

    Args:
        settle: which norm a module is, from its epsilon and numbers; None where it is another.
        forward: what stands for it.
        gated: whether it takes a gate (``gated_norm.py``).
    """
    settled: dict[tuple[type, str], V | None] = {}
    found: list[tuple[nn.Module, str, Any]] = []
    for _, module in modules_of(model):
        epsilon = _epsilon(module)
        if epsilon is None or _takes_gate(module) != gated:
            continue
        key = (type(module), repr(sorted(_plain(module).items())))
        if key not in settled:
            settled[key] = settle(module, epsilon)
        variant = settled[key]
        if variant is not None:
            found.append((module, "forward", forward(module, epsilon, variant)))
    with swapped(*found):
        yield len(found)


def _plain(module: nn.Module) -> dict[str, object]:
    """Attributes that its code may look at, such as epsilon or the number of groups."""
    return {n: v for n, v in vars(module).items() if isinstance(v, bool | int | float | str)}


def _takes_gate(module: nn.Module) -> bool:
    return "gate" in inspect.signature(type(module).forward).parameters


def _epsilon(module: nn.Module) -> float | None:
    weights = [weight for weight in module._parameters.values() if weight is not None]
    if isinstance(module, nn.LayerNorm) or module._modules or len(weights) > 1:
        return None
    if weights and (weights[0].ndim != 1 or getattr(module, "weight", None) is None):
        return None
    if not weights and any(buffer is not None for buffer in module._buffers.values()):
        return None
    for name in ("variance_epsilon", "eps", "epsilon"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    return None


def _settle(module: nn.Module, epsilon: float) -> _Variant | None:
    with outside_trace():
        twin = real_copy(module)
        weight = _weight(twin, torch.empty(_WIDTH))
        x = torch.randn(3, 5, len(weight)) * 3
        # Small rows make the place and the size of epsilon visible.
        x[0] *= epsilon**0.5
        try:
            found = twin(x)
        except Exception:  # any module may look like a norm; one that cannot run is not one
            return None
        if not isinstance(found, Tensor) or found.shape != x.shape:
            return None
        for variant in _VARIANTS if twin._parameters else _VARIANTS[:1]:
            wanted = variant.of(x, weight, epsilon)
            if torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
                return variant
    return None


def _weight(module: nn.Module, x: Tensor) -> Tensor:
    """That of a norm, or as good as none for numbers (.., width)."""
    own = getattr(module, "weight", None)
    return cast(Tensor, own) if own is not None else x.new_ones(x.shape[-1])


def _forward(module: nn.Module, epsilon: float, variant: _Variant):  # type: ignore[no-untyped-def]
    def layer_norm(hidden_states: Tensor) -> Tensor:
        weight = cast(Tensor, module.weight)
        return nn.functional.layer_norm(hidden_states, weight.shape, weight, None, epsilon)

    def rms_norm(hidden_states: Tensor) -> Tensor:
        out: Tensor = torch.ops.lepton.rms_norm(
            hidden_states, _weight(module, hidden_states), epsilon, variant.offset
        )
        return out

    return layer_norm if variant.centered else rms_norm
