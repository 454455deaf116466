"""The ops a captured model is traced with, one for each thing the graph should keep whole.

They exist for ``torch.export`` alone: each has a schema and a shape rule. None computes but those
that functions with a state end in, which are compared with a model's own. The translator
(``translate/lepton.py``, ``translate/states.py``) turns them into the neutral dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["constants", "layer_shapes"]

_library = torch.library.Library("lepton", "DEF")  # type: ignore[no-untyped-call]

# Shape rule of `layers`, set while the outer model is traced: (inputs, chain) -> output tensors.
layer_shapes: list[Callable[[Sequence[Tensor], int], list[Tensor]]] = []


# Values of `constant`, by its index, while a model is traced.
constants: list[np.ndarray] = []


def _define(schema: str, fake: Callable[..., object]) -> None:
    _library.define(schema)  # type: ignore[no-untyped-call]
    name = "lepton::" + schema.split("(")[0]
    torch.library.register_fake(name, fake, lib=_library)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    causal: bool,
    window: int,
    softcap: float,
    cached: bool,
    sinks: Tensor | None = None,
) -> Tensor:
    batch, heads, sequence, _ = query.shape
    return query.new_empty((batch, sequence, heads, value.shape[-1]))


def _linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    beta: Tensor | None,
    state: Tensor | None,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    shape = (value.shape[0], heads, key.shape[-1] // heads, value.shape[-1] // heads)
    return torch.empty_like(value), value.new_empty(shape)


def _run_rms_norm(x: Tensor, weight: Tensor, epsilon: float, offset: float) -> Tensor:
    scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
    return scaled * (weight + offset)


def _run_convolution(x: Tensor, weight: Tensor, state: Tensor | None) -> Tensor:
    channels, kernel = weight.shape
    past = x.new_zeros((x.shape[0], channels, kernel - 1)) if state is None else state
    window = torch.cat([past, x], dim=-1)
    return torch.nn.functional.conv1d(window, weight[:, None], groups=channels)


def _run_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    decay: Tensor,
    beta: Tensor | None,
    state: Tensor | None,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Token by token."""
    q, k, v, g = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value, decay))
    s = v.new_zeros((v.shape[0], heads, k.shape[-1], v.shape[-1])) if state is None else state
    out = []
    for t in range(v.shape[1]):
        s, written = s * g[:, t, :, :, None].exp(), v[:, t]
        if beta is not None:
            known = (s * k[:, t, :, :, None]).sum(2)
            written = (written - known) * beta[:, t, :, None]
        s = s + k[:, t, :, :, None] * written[:, :, None, :]
        out.append(scale * (s * q[:, t, :, :, None]).sum(2))
    return torch.stack(out, dim=1).flatten(2), s


def _layers(inputs: Sequence[Tensor], chain: int) -> list[Tensor]:
    return layer_shapes[-1](inputs, chain)


_define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, bool causal, "
    "int window, float softcap, bool cached, Tensor? sinks) -> Tensor",
    _attention,
)
_define(
    # Over the cache of an earlier layer, which the keys and values stand for.
    "shared_attention(Tensor query, Tensor key, Tensor value, Tensor mask, float scale, "
    "bool causal, int window, float softcap) -> Tensor",
    lambda query, key, value, mask, *_: query.new_empty(
        (query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    ),
)
_define("mask(Tensor mask) -> Tensor", lambda mask: torch.empty_like(mask, dtype=torch.bool))
_define(
    # As torch's attention takes it, so that code which looks at the rank of a mask finds four.
    "wide_mask(Tensor mask) -> Tensor",
    lambda mask: mask.new_empty((mask.shape[0], 1, 1, mask.shape[1]), dtype=torch.bool),
)
_define(
    # Of each token those experts that `indices` name, weighed by `shares`.
    "experts(Tensor x, Tensor indices, Tensor shares, Tensor gate_up, Tensor down, "
    "Tensor? gate_up_bias, Tensor? down_bias, float alpha, float beta, float limit, "
    "bool interleaved, bool transposed, str activation, bool gated) -> Tensor",
    lambda x, *_: torch.empty_like(x),
)
_define(
    "rms_norm(Tensor x, Tensor weight, float epsilon, float offset) -> Tensor",
    lambda x, weight, epsilon, offset: torch.empty_like(x),
)
_define(
    "rotary(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor",
    lambda x, cos, sin, interleaved: torch.empty_like(x),
)
_define(
    # The same by cos and sin of half a head's width.
    "turned(Tensor x, Tensor cos, Tensor sin) -> Tensor",
    lambda x, cos, sin: torch.empty_like(x),
)
_define(
    # Rows by positions on several axes; `axes` says of each column of half a row which it goes by.
    "rotary_axes(Tensor positions, int table, int width, int[] axes) -> (Tensor, Tensor)",
    lambda positions, table, width, axes: (
        positions.new_empty((*positions.shape[1:], width), dtype=torch.float32),
        positions.new_empty((*positions.shape[1:], width), dtype=torch.float32),
    ),
)
_define(
    "rotary_table(Tensor positions, int table, int width) -> (Tensor, Tensor)",
    lambda positions, table, width: (
        positions.new_empty((*positions.shape, width), dtype=torch.float32),
        positions.new_empty((*positions.shape, width), dtype=torch.float32),
    ),
)
_define(
    "positions(Tensor attention_mask, Tensor input_ids) -> Tensor",
    lambda attention_mask, input_ids: torch.empty_like(input_ids),
)
_define(
    # Rows take the places of as many tokens of one kind, in order, through the whole batch.
    "placed(Tensor embeddings, Tensor input_ids, Tensor rows, int token) -> Tensor",
    lambda embeddings, *_: torch.empty_like(embeddings),
)
_define(
    # 0 is padding, 1 a token of a text, and from 2 on a number for each picture's tokens.
    "marked_mask(Tensor attention_mask, Tensor input_ids, int token) -> Tensor",
    lambda attention_mask, *_: torch.empty_like(attention_mask),
)
_define("marks(Tensor marked) -> Tensor", lambda marked: torch.empty_like(marked))
_define(
    # The true output has fewer positions; nothing after it may depend on how many.
    "keep_last(Tensor hidden, Tensor count) -> Tensor",
    lambda hidden, count: torch.empty_like(hidden),
)
_define(
    # The true outputs are past and new keys and values; `total` says how long they are.
    "append(Tensor key, Tensor value, SymInt total) -> (Tensor, Tensor)",
    lambda key, value, total: tuple(
        fresh.new_empty((*fresh.shape[:2], total, *fresh.shape[3:])) for fresh in (key, value)
    ),
)
_define(
    # Without a state the op has its own, which it keeps from run to run.
    "causal_conv(Tensor x, Tensor weight, Tensor? state) -> Tensor",
    lambda x, weight, state: torch.empty_like(x),
)
_define(
    # (batch, sequence, heads * width) each; the second output is (batch, heads, key, value).
    "linear_attention(Tensor query, Tensor key, Tensor value, Tensor decay, Tensor? beta, "
    "Tensor? state, int heads, float scale) -> (Tensor, Tensor)",
    _linear_attention,
)
_define(
    "new_mask(Tensor attention_mask, Tensor hidden) -> Tensor",
    lambda attention_mask, hidden: hidden.new_empty(hidden.shape[:2]),
)
_define(
    # ``view[..] = source``. torch asks whether it is broadcast, and so would fix an open size.
    "write_(Tensor(a!) view, Tensor source) -> ()",
    lambda view, source: None,
)
_define(
    "constant(int index, int[] shape, ScalarType dtype) -> Tensor",
    lambda index, shape, dtype: torch.empty(shape, dtype=dtype, device="meta"),
)
_define("layers(Tensor[] inputs, int chain) -> Tensor[]", _layers)

_library.impl("rms_norm", _run_rms_norm, "CPU")  # type: ignore[no-untyped-call]
_library.impl("causal_conv", _run_convolution, "CPU")  # type: ignore[no-untyped-call]
_library.impl("linear_attention", _run_linear_attention, "CPU")  # type: ignore[no-untyped-call]
