"""How a model's own function turns queries and keys by the rows of its rotary tables.

It takes cos and sin, or one complex tensor, cos + i sin (DeepSeek-V2, Llama 4): what it does with
them is settled by running it on numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lepton_compile.errors import ExportError
from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton

from .probe import outside_trace

__all__ = ["Rotation", "Turns", "settle"]

# (joint, heads, doubled) of a Rotation that a function is tried for, in this order.
_ONE_HEAD = ((False, 1, False), (False, 1, True))
_PAIRS = (*_ONE_HEAD, (True, 1, False), (True, 2, False))


class Turns:
    """Rows of two tables where a model expects cos + i sin: it may pass them on, nothing else."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    def to(self, *args: Any, **kwargs: Any) -> Turns:
        """To a device: all of a trace is on one."""
        return self


pytree.register_pytree_node(
    Turns,
    lambda turns: ([turns.cos, turns.sin], None),
    lambda leaves, _: Turns(*leaves),
    serialized_type_name="lepton_compile.Turns",
)


@dataclass(frozen=True)
class Rotation:
    """How a function turns heads.

    Args:
        interleaved: neighbours are turned, else halves.
        joint: it takes one complex tensor.
        heads: the axis of heads in what it takes.
        single: it turns query and key in two calls, in which the caller names that axis (Gemma 4).
        doubled: cos and sin have each entry twice in a row (Cohere), else the whole row twice.
        partial: what of a head is beyond the rows stays as it is (GLM), else heads are as wide.
    """

    interleaved: bool
    joint: bool = False
    heads: int = 1
    single: bool = False
    doubled: bool = False
    partial: bool = False

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The rotation as a captured op, which has heads before positions.

        Raises:
            ExportError: rows are of another width than the model's code can turn these heads by.
        """
        head, row = x.shape[-1], cos.shape[-1]
        if row > head or (row < head and not self.partial):
            raise ExportError(
                "heads and the rows of the rotary embedding differ in width",
                found=f"{head} and {row}",
                hint="compare rope_parameters with those that the model was released with",
            )
        if self.heads == 1:
            return torch.ops.lepton.rotary(x, cos, sin, self.interleaved)  # type: ignore[no-any-return]
        turned: Tensor = torch.ops.lepton.rotary(x.transpose(1, 2), cos, sin, self.interleaved)
        return turned.transpose(1, 2)

    def captured(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``original`` with the op in place of its code wherever it is called as it was tried."""

        def pair(
            q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            if args or kwargs.get("unsqueeze_dim", 1) != 1:
                rotated: tuple[Tensor, Tensor] = original(q, k, cos, sin, *args, **kwargs)
                return rotated
            return self(q, cos, sin), self(k, cos, sin)

        def joint(q: Tensor, k: Tensor, turns: Turns | Tensor) -> tuple[Tensor, Tensor]:
            if isinstance(turns, Turns):
                return self(q, turns.cos, turns.sin), self(k, turns.cos, turns.sin)
            rotated: tuple[Tensor, Tensor] = original(q, k, turns)
            return rotated

        def single(x: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Tensor:
            if unsqueeze_dim not in (1, 2):
                turned: Tensor = original(x, cos, sin, unsqueeze_dim)
                return turned
            return replace(self, heads=unsqueeze_dim)(x, cos, sin)

        if self.single:
            return single
        return joint if self.joint else pair


def settle(function: Callable[..., Any]) -> Rotation | None:
    """Which rotation a function is; None where it is something else."""
    with outside_trace():
        query, key, angle = torch.randn(2, 3, 5, 8), torch.randn(2, 1, 5, 8), torch.randn(2, 5, 4)
        cos, sin = angle.cos(), angle.sin()
        single = list(inspect.signature(function).parameters)[1:3] == ["cos", "sin"]
        for joint, heads, doubled in _ONE_HEAD if single else _PAIRS:
            given = (torch.complex(cos, sin),) if joint else _wide(cos, sin, doubled)
            try:
                if single:
                    behind = function(query.transpose(1, 2), *given, unsqueeze_dim=2)
                    found = [behind.transpose(1, 2), function(key, *given)]
                else:
                    found = function(query.transpose(1, heads), key.transpose(1, heads), *given)
            except Exception:  # another signature, or another place for heads
                continue
            for interleaved in (False, True):
                expected = [_turned(x, cos, sin, interleaved) for x in (query, key)]
                if all(map(_equal, found, [x.transpose(1, heads) for x in expected])):
                    partial = not joint and _turns_a_part(function, single, *given)
                    return Rotation(interleaved, joint, heads, single, doubled, partial)
    return None


def _turns_a_part(function: Callable[..., Any], single: bool, cos: Tensor, sin: Tensor) -> bool:
    """Whether a function that turns heads as wide as the rows leaves the rest of wider ones."""
    wide = torch.randn(2, 3, 5, cos.shape[-1] + 4)
    part = wide[..., : cos.shape[-1]]
    try:
        if single:
            found, turned = function(wide, cos, sin), function(part, cos, sin)
        else:
            found, turned = (function(x, x, cos, sin)[0] for x in (wide, part))
    except Exception:  # whatever a model's own code raises: its rows are too narrow
        return False
    return _equal(found, torch.cat((turned, wide[..., cos.shape[-1] :]), -1))


def _wide(cos: Tensor, sin: Tensor, doubled: bool) -> tuple[Tensor, Tensor]:
    """Rows as wide as what they turn."""
    if doubled:
        return cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)
    return torch.cat([cos] * 2, -1), torch.cat([sin] * 2, -1)


def _equal(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5)


def _turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    cos, sin = cos[:, None], sin[:, None]
    if interleaved:
        first, second = x[..., 0::2], x[..., 1::2]
        both = (first * cos - second * sin, second * cos + first * sin)
        return torch.stack(both, -1).flatten(-2)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
