"""Layers with a state, by the functions of their modules that transformers' models call.

    conv    y_t = sum_i w_i x_(t - kernel + 1 + i), each channel for itself
    scan    S_t = exp(g_t) S_(t-1) + k_t v_t'                                  (gated)
            S_t = exp(g_t) S_(t-1) + b_t k_t (v_t - (exp(g_t) S_(t-1))' k_t)'  (gated delta rule)
            y_t = scale S_t' q_t

Each of ours ends in one of two ops that own their state, and comes with arguments on which it has
to give what the model's own does.

Sources: Yang et al., Gated Delta Networks, 2024, arXiv:2412.06464; Dao and Gu, Transformers are
SSMs, 2024, arXiv:2405.21060 (Mamba-2, where C is q, B is k, x dt is v and A dt is g); Gu and Dao,
Mamba, 2023, arXiv:2312.00752 (the same with a decay for each row of the state).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN

from lepton_compile.errors import ExportError
from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton

from .states import NOT_SUPPORTED, active

__all__ = ["FUNCTIONS", "Function"]

_L2_EPSILON = 1e-6
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _mask(
    config: Any = None,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> Tensor | None:
    """The mask of new tokens as numbers, (batch, sequence): padding enters no state."""
    if attention_mask is None or attention_mask.ndim != 2 or inputs_embeds is None:
        return None
    mask: Tensor = torch.ops.lepton.new_mask(attention_mask, inputs_embeds)
    return mask


def _masked(hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Padding as zeros; Mamba hands on the mask of all tokens."""
    if attention_mask is None:
        return hidden_states
    mask = attention_mask
    if _example(mask.shape[1]) != _example(hidden_states.shape[1]):
        mask = torch.ops.lepton.new_mask(mask, hidden_states)
    return hidden_states * mask[:, :, None]


def _example(size: int | torch.SymInt) -> int:
    """The number that stands for an open size in a trace: to compare the sizes would fix them."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else size


def _convolution(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    **kwargs: Any,
) -> Tensor:
    """``hidden_states`` are (batch, channels, sequence), the weight is (channels, kernel)."""
    _check_no_more(kwargs)
    x, (channels, kernel) = hidden_states, weight.shape
    cached = active().take(x)
    if kernel == 1:  # looks at no earlier token: a state would have no numbers
        out: Tensor = x * weight
    else:
        state = None if cached else x.new_zeros((x.shape[0], channels, kernel - 1))
        out = torch.ops.lepton.causal_conv(x, weight, state)
    if bias is not None:
        out = out + bias[:, None]
    return out if activation is None else ACT2FN[activation](out)


def _gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """All are (batch, sequence, heads, width); g, in log space, may lack the width, beta does."""
    _check_no_more(kwargs, initial_state)
    heads = value.shape[2]
    if use_qk_l2norm_in_kernel:
        query, key = _of_length_one(query), _of_length_one(key)
    return _scan(
        _repeated(query, heads),
        _repeated(key, heads),
        value,
        g,
        beta,
        float(query.shape[-1]) ** -0.5,
        output_final_state,
    )


def _of_length_one(x: Tensor) -> Tensor:
    """``x / sqrt(sum x^2 + e)`` over the last axis as an RMS norm, which has a mean there."""
    width = x.shape[-1]
    weight = x.new_full((width,), float(width) ** -0.5)
    out: Tensor = torch.ops.lepton.rms_norm(x, weight, _L2_EPSILON / width, 0.0)
    return out


def _mamba2(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    z: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """``hidden_states`` are (batch, sequence, heads, width), B and C (.., groups, state)."""
    _check_no_more(kwargs, initial_states, z)
    heads = hidden_states.shape[2]
    dt = dt if dt_bias is None else dt + dt_bias
    dt = functional.softplus(dt) if dt_softplus else dt
    if tuple(dt_limit) != (0.0, float("inf")):
        dt = torch.clamp(dt, min=dt_limit[0], max=dt_limit[1])
    elif not dt_softplus:
        dt = torch.clamp(dt, min=0.0)
    value = hidden_states * dt[..., None]
    query, key = _repeated(C, heads), _repeated(B, heads)
    out, state = _scan(query, key, value, A * dt, None, 1.0, return_final_states)
    if D is not None:
        out = out + D[..., None] * hidden_states
    return (out, state) if return_final_states else out


def _mamba(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **kwargs: Any,
) -> Any:
    """``hidden_states`` and dt are (batch, channels, sequence), A is (channels, state), B and C
    (batch, state, sequence): each channel is a head with values of width 1."""
    _check_no_more(kwargs)
    x, dt = hidden_states.transpose(1, 2), dt.transpose(1, 2)
    dt = dt if delta_bias is None else dt + delta_bias
    dt = functional.softplus(dt) if delta_softplus else dt
    shape = (*x.shape, A.shape[1])
    query, key = (each.transpose(1, 2)[:, :, None, :].expand(shape) for each in (C, B))
    value = (x * dt)[..., None]
    out, state = _scan(query, key, value, A * dt[..., None], None, 1.0, return_last_state)
    out = out[..., 0] if D is None else out[..., 0] + D * x
    out = out.transpose(1, 2)
    out = out if z is None else out * functional.silu(z)
    return (out, state) if return_last_state else out


def _repeated(x: Tensor, heads: int) -> Tensor:
    """(batch, sequence, groups, width) with each group once for each of its heads."""
    batch, sequence, groups, width = x.shape
    if groups == heads:
        return x
    wide = x[:, :, :, None, :].expand(batch, sequence, groups, heads // groups, width)
    return wide.reshape(batch, sequence, heads, width)


def _scan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    beta: Tensor | None,
    scale: float,
    cached: bool,
) -> tuple[Tensor, Tensor | None]:
    batch, _, heads, width = value.shape
    state = None if cached else value.new_zeros((batch, heads, key.shape[-1], width))
    flat = [query.flatten(2), key.flatten(2), value.flatten(2), decay.flatten(2)]
    out, present = torch.ops.lepton.linear_attention(*flat, beta, state, heads, scale)
    return out.unflatten(2, (heads, width)), active().made(present) if cached else None


def _check_no_more(given: Mapping[str, Any], *others: Tensor | None) -> None:
    """Refuse what is not captured: passed over, it would change the numbers."""
    found = [name for name, value in given.items() if isinstance(value, Tensor)]
    if found or any(other is not None for other in others):
        raise ExportError(NOT_SUPPORTED, found=", ".join(found) or None)


class Function(NamedTuple):
    """A function of ours, and arguments to compare it with the model's; None where it has to
    differ."""

    function: Callable[..., Any]
    sample: Callable[[], Arguments] | None


def _delta_sample(groups: int, decay: tuple[int, ...]) -> Arguments:
    query, key = (torch.randn(2, 7, groups, 6) for _ in range(2))
    return (query, key, torch.randn(2, 7, 4, 3)), {
        "g": -torch.rand(2, 7, *decay),
        "beta": torch.rand(2, 7, 4),
        "output_final_state": True,
        "use_qk_l2norm_in_kernel": True,
    }


# What the modules of transformers' models call, by the names they call it.
FUNCTIONS: dict[str, Function] = {
    "create_recurrent_attention_mask": Function(_mask, None),
    "apply_mask_to_padding_states": Function(
        _masked, lambda: ((torch.randn(2, 7, 6), torch.arange(14).reshape(2, 7) % 2), {})
    ),
    "causal_conv1d_fn": Function(
        _convolution,
        lambda: (
            (torch.randn(2, 6, 7), torch.randn(6, 4), torch.randn(6)),
            {"activation": "silu"},
        ),
    ),
    "torch_chunk_gated_delta_rule": Function(_gated_delta_rule, lambda: _delta_sample(2, (4,))),
    "chunk_kimi_delta_attention": Function(_gated_delta_rule, lambda: _delta_sample(4, (4, 6))),
    "mamba2_chunk_scan": Function(
        _mamba2,
        lambda: (
            (torch.randn(2, 7, 4, 3), torch.randn(2, 7, 4), -torch.rand(4)),
            {
                "B": torch.randn(2, 7, 2, 6),
                "C": torch.randn(2, 7, 2, 6),
                "chunk_size": 5,
                "D": torch.randn(4),
                "dt_bias": torch.randn(4),
                "dt_softplus": True,
                "dt_limit": (0.1, 1.0),
                "return_final_states": True,
            },
        ),
    ),
    "mamba_selective_scan": Function(
        _mamba,
        lambda: (
            (torch.randn(2, 6, 7), torch.randn(2, 6, 7), -torch.rand(6, 4)),
            {
                "B": torch.randn(2, 4, 7),
                "C": torch.randn(2, 4, 7),
                "D": torch.randn(6),
                "z": torch.randn(2, 6, 7),
                "delta_bias": torch.randn(6),
                "delta_softplus": True,
                "return_last_state": True,
            },
        ),
    ),
}
