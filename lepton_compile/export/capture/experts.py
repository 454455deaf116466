"""Mixtures of experts, captured through transformers' own interface as one op.

Every module that calls experts through ``ALL_EXPERTS_FUNCTIONS`` hands us the tokens, the experts
chosen for each and their shares; the router before it stays as the model wrote it. How gate and up
become one is settled by running the module's own code on numbers against

    G = min(gate, limit);  U = clip(up, -limit, limit);  f(G) * (U + beta)

where f(G) is G * sigmoid(alpha * G), as in SwiGLU and in GPT-OSS, or Gelu, exact or by tanh (Gemma
4), or Relu, or its square. Experts without a gate are f(up) (Nemotron-H). What is none of these is
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compile.errors import ExportError
from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton
from lepton_compile.export.meta import configs_of

from .probe import outside_trace

__all__ = ["ExpertsError", "capture_experts"]

_NAME = "lepton"
_WIDTH = 6  # of the gate and the up that are tried
_SWISH, _QUICK_GELU = "swish", 1.702
_OTHERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x) ** 2,
}


class ExpertsError(ExportError):
    """The model has experts that no way of capturing it can express."""


@dataclass(frozen=True)
class _Gate:
    """How the two halves of what an expert projects become one; ``limit`` is 0 where there is none.

    ``interleaved``: gate and up take turns, else the gate is the first half. ``alpha`` is of the
    activation ``swish`` alone. Not ``gated``, there are no halves: the activation is all.
    """

    activation: str
    alpha: float
    beta: float
    limit: float
    interleaved: bool
    gated: bool = True

    def __call__(self, projected: Tensor) -> Tensor:
        if not self.gated:
            return self._activated(projected)
        if self.interleaved:
            gate, up = projected[..., ::2], projected[..., 1::2]
        else:
            gate, up = projected.chunk(2, dim=-1)
        if self.limit:
            gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return self._activated(gate) * (up + self.beta)

    def _activated(self, gate: Tensor) -> Tensor:
        if self.activation == _SWISH:
            return gate * torch.sigmoid(self.alpha * gate)
        return _OTHERS[self.activation](gate)


@contextmanager
def capture_experts(model: nn.Module) -> Iterator[None]:
    """Have the model call experts as the op ``lepton::experts`` while the context is open."""
    from transformers.integrations.moe import ExpertsInterface

    ExpertsInterface.register(_NAME, _experts)
    named = [(c, getattr(c, "_experts_implementation", None)) for c in configs_of(model)]
    before = [(config, name) for config, name in named if name is not None]
    for config, _ in before:
        config._experts_implementation = _NAME
    try:
        yield
    finally:
        for config, name in before:
            config._experts_implementation = name


def _experts(
    module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """What transformers calls as experts; tokens are (tokens, width), choices (tokens, k)."""
    own_norm = getattr(module, "has_post_expert_norm", False)
    if own_norm or hidden_states.ndim != 2:
        raise ExpertsError(
            "mixtures of experts are not supported in this form",
            found=f"{type(module).__name__}: a norm of its own, or batches",
        )
    gate = _settle(module)
    first = "gate_up_proj" if gate.gated else "up_proj"
    names = (f"{first}_bias", "down_proj_bias") if module.has_bias else ()
    biases = [getattr(module, name) for name in names] or [None, None]
    out: Tensor = torch.ops.lepton.experts(
        hidden_states,
        top_k_index,
        top_k_weights,
        getattr(module, first),
        module.down_proj,
        *biases,
        gate.alpha,
        gate.beta,
        gate.limit,
        gate.interleaved,
        module.is_transposed,
        gate.activation,
        gate.gated,
    )
    return out


def _settle(module: Any) -> _Gate:
    """Which gate the module's own code is, or an error."""
    with outside_trace():
        near = torch.randn(64, 2 * _WIDTH)
        projected = torch.cat([near, 20 * near])  # the second half is beyond any limit
        expected = (module._apply_gate if module.has_gate else module.act_fn)(projected)
        for gate in _candidates(module):
            if torch.allclose(gate(projected), expected, rtol=1e-4, atol=1e-4):
                return gate
    activation = getattr(module, "act_fn", None)
    raise ExpertsError(
        "mixtures of experts are supported with gates of SwiGLU, Gelu and Relu alone",
        found=f"{type(module).__name__} with {type(activation).__name__}",
    )


def _candidates(module: Any) -> Iterator[_Gate]:
    alphas = [1.0, _QUICK_GELU, *_numbers(module, "alpha", "swiglu_alpha")]
    limits = [0.0, *_numbers(module, "limit", "swiglu_limit")]
    kinds = [*((_SWISH, alpha) for alpha in alphas), *((name, 1.0) for name in _OTHERS)]
    if not module.has_gate:
        yield from (_Gate(*kind, 0.0, 0.0, interleaved=False, gated=False) for kind in kinds)
        return
    for kind, beta, limit, interleaved in product(kinds, (0.0, 1.0), limits, (False, True)):
        yield _Gate(*kind, beta, limit, interleaved)


def _numbers(module: Any, *names: str) -> list[float]:
    """What the module, or its configuration, calls by one of ``names``."""
    homes = (module, getattr(module, "config", None))
    found = (getattr(home, name, None) for home in homes for name in names)
    return list(dict.fromkeys(float(each) for each in found if isinstance(each, int | float)))
