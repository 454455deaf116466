"""Tensors that the model's code makes out of Python numbers while it is traced.

The model is on the meta device, and so would be the tensor: its values would be gone. Here they
are kept aside, and an op stands for them that the translator turns into a constant. Another op
stands for what is written into a part of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lepton_compile.export import ops

__all__ = ["ConstantCapture"]

_MAKERS = (torch.tensor, torch.as_tensor)
# torch's own choice by the kind of the numbers, as numpy calls it.
_TYPES = {"b": torch.bool, "i": torch.int64, "f": torch.float32}


class ConstantCapture(TorchFunctionMode):
    """While active, ``torch.tensor(numbers, device="meta")`` and lists in indices keep theirs, and
    ``x[1:] = y`` asks nothing of the sizes."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and str(kwargs.get("device")) == "meta" and args and _plain(args[0]):
            dtype = kwargs.get("dtype")
            if dtype is None or dtype in _TYPES.values():
                return _kept(args[0], dtype)
        if func is torch.Tensor.__getitem__ and args[0].device.type == "meta":
            args = (args[0], _indices(args[1]))
        if func is torch.Tensor.__setitem__ and args[0].device.type == "meta" and _parts(*args[1:]):
            return _write(args[0][args[1]], args[2])
        return func(*args, **kwargs)


def _write(part: Tensor, source: Any) -> None:
    if isinstance(source, Tensor):
        torch.ops.lepton.write_(part, source)
    else:
        part.fill_(source)


def _parts(where: Any, source: Any) -> bool:
    """Whether slices and numbers say where, and a tensor or a number what."""
    each = where if isinstance(where, tuple) else (where,)
    known = all(isinstance(e, slice | int) or e is None or e is ... for e in each)
    return known and isinstance(source, Tensor | bool | int | float)


def _indices(where: Any) -> Any:
    """An index with its lists (``x[..., [-2], :]``) as kept tensors."""
    if isinstance(where, tuple):
        return tuple(_kept(i, None) if isinstance(i, list) and _plain(i) else i for i in where)
    return _kept(where, None) if isinstance(where, list) and _plain(where) else where


def _plain(data: Any) -> bool:
    if isinstance(data, list | tuple):
        return all(_plain(each) for each in data)
    return type(data) in (bool, int, float)


def _kept(data: Any, dtype: torch.dtype | None) -> Tensor:
    values = np.array(data)
    dtype = dtype or _TYPES[values.dtype.kind]
    if values.ndim == 0:  # a number needs no place of its own
        return torch.full((), data, dtype=dtype, device="meta")
    name = str(dtype).removeprefix("torch.")
    ops.constants.append(values.astype(name))
    kept: Tensor = torch.ops.lepton.constant(len(ops.constants) - 1, list(values.shape), dtype)
    return kept
