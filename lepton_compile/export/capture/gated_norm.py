"""RMS norms with a gate, as behind linear attention, told from their numbers.

A candidate is a norm (``norm.py``) whose forward takes a gate, too. The real module runs on random
numbers and is compared with ``rms_norm(x) * a(gate)`` and ``rms_norm(x * a(gate))``, where ``a`` is
SiLU or the sigmoid. One whose rows are normed in groups stays as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton

from .norm import replaced
from .probe import outside_trace, real_copy

__all__ = ["capture_gated_norms"]

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Variant:
    """What the gate goes through, and whether it comes before the norm."""

    activation: Callable[[Tensor], Tensor]
    before: bool

    def of(self, x: Tensor, gate: Tensor, norm: Norm) -> Tensor:
        """The gated norm by its definition."""
        if self.before:
            return norm(x * self.activation(gate))
        return norm(x) * self.activation(gate)


_VARIANTS = tuple(
    _Variant(activation, before)
    for activation in (functional.silu, torch.sigmoid)
    for before in (False, True)
)


@contextmanager
def capture_gated_norms(model: nn.Module) -> Iterator[int]:
    """Replace the forward of every recognised one; yields how many there are."""
    with replaced(model, _settle, _forward, gated=True) as count:
        yield count


def _settle(module: nn.Module, epsilon: float) -> _Variant | None:
    with outside_trace():
        twin = real_copy(module)
        x, gate = (torch.randn(3, 5, len(cast(Tensor, twin.weight))) * 3 for _ in range(2))
        # Small rows make the place and the size of epsilon visible.
        x[0] *= epsilon**0.5
        try:
            found = twin(x, gate)
        except Exception:  # any module may look like one; one that cannot run is not one
            return None
        for variant in _VARIANTS:
            wanted = _forward(twin, epsilon, variant)(x, gate)
            if found.shape == x.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
                return variant
    return None


def _forward(module: nn.Module, epsilon: float, variant: _Variant) -> Callable[..., Tensor]:
    def norm(rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.lepton.rms_norm(rows, module.weight, epsilon, 0.0)
        return out

    def forward(hidden_states: Tensor, gate: Tensor) -> Tensor:
        return variant.of(hidden_states, gate, norm)

    return forward
