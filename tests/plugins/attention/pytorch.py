"""The op in PyTorch, in fp32 and on any device, and inputs of a case as tensors there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_plugins.attention.reference import append
from lepton_plugins.attention.variant import Variant
from tests.plugins.attention.cases import Arrays, Case, inputs, numpy_dtype

__all__ = ["appended", "array", "attention", "tensor"]


def tensor(values: NDArray[Any], device: str) -> Any:
    """A copy of ``values`` on ``device``, bit for bit."""
    import torch

    bits = {"bfloat16": np.int16, "float8_e4m3fn": np.int8}.get(values.dtype.name)
    if bits is None:
        return torch.from_numpy(values.copy()).to(device)
    plain = torch.from_numpy(values.view(bits).copy()).to(device)
    return plain.view(getattr(torch, values.dtype.name))


def array(values: Any, dtype: str) -> NDArray[Any]:
    """``values`` on the host, of numpy's ``dtype``."""
    import torch

    bits = {"bfloat16": torch.int16, "float8_e4m3fn": torch.int8}.get(dtype)
    plain = values if bits is None else values.view(bits)
    return np.asarray(plain.cpu().numpy().view(numpy_dtype(dtype)))


def appended(case: Case) -> Arrays:
    """The inputs, with the new rows in the caches."""
    arrays, variant = inputs(case), case.variant
    for part, scale in (("key", variant.key_scale), ("value", variant.value_scale)):
        cache = arrays[f"{part}_cache"]
        append(arrays[part], arrays["past_lengths"], cache, scale, variant.cache_dtype)
    return arrays


def attention(case: Case, tensors: dict[str, Any]) -> Any:
    """The output in fp32, from caches that hold the new rows; row by row of the batch."""
    import torch

    rows = []
    for row, past in enumerate(case.past):
        length = min(past + case.sequence, case.capacity)
        rows.append(_row(case.variant, tensors, row, past, length, torch))
    return torch.stack(rows)


def _row(of: Variant, tensors: dict[str, Any], row: int, past: int, length: int, torch: Any) -> Any:
    query = tensors["query"][row].float()
    sequence = query.shape[0]
    query = query.reshape(sequence, of.q_num_heads, of.head_dim).transpose(0, 1)
    keys, values = (
        (tensors[f"{part}_cache"][row, :, :length].float() * scale).repeat_interleave(of.group, 0)
        for part, scale in (("key", of.key_scale), ("value", of.value_scale))
    )
    scores = query @ keys.transpose(1, 2) * of.scale
    if of.softcap > 0:
        scores = torch.tanh(scores / of.softcap) * of.softcap
    own = past + torch.arange(sequence, device=query.device)[:, None]
    others = torch.arange(length, device=query.device)[None, :]
    seen = others <= own
    if of.window > 0:
        seen = seen & (others > own - of.window)
    scores = scores.masked_fill(~seen, float("-inf"))
    if of.sinks:  # one more key, that has no value
        sinks = tensors["sinks"][:, None, None].expand(-1, sequence, 1)
        weights = torch.cat((scores, sinks), -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights @ values).transpose(0, 1).reshape(sequence, -1)
