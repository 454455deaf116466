"""Rotary position embedding: its tables and its rotation, settled by numbers.

A rotary module is one without parameters whose buffers hold inverse frequencies. Its cos and sin
are computed once for every position the engine will see; the module is captured only when a row
depends on its own position alone (dynamic scaling does not, and stays as the model wrote it).
RoPE: Su et al., 2021, https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton
from lepton_compile.export.meta import modules_of

from .probe import outside_trace

__all__ = ["RotaryCapture"]

_ROTATE = "apply_rotary_pos_emb"


class RotaryCapture:
    """Captures the rotary modules of one model and collects their tables.

    ``tables[i]`` is (cos, sin), each fp32 of shape (positions, rotary width / 2).
    """

    def __init__(self, positions: int) -> None:
        self.positions = positions
        self.tables: list[tuple[np.ndarray, np.ndarray]] = []
        self._known: dict[tuple[int, str], int | None] = {}

    @contextmanager
    def patched(self, model: nn.Module) -> Iterator[None]:
        rotations = _rotations(model)
        styles = {name: _settle(function) for name, function in rotations.items()}
        if not rotations or any(style is None for style in styles.values()):
            yield  # someone reads cos and sin in a way we do not know: leave both alone
            return
        modules = [m for _, m in modules_of(model) if _is_rotary(m)]
        for module in modules:
            module.forward = self._forward(module, module.forward)
        for name, function in rotations.items():
            setattr(sys.modules[name], _ROTATE, _rotate(bool(styles[name]), function))
        try:
            yield
        finally:
            for module in modules:
                del module.forward
            for name, function in rotations.items():
                setattr(sys.modules[name], _ROTATE, function)

    def _forward(self, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            bound = signature.bind(*args, **kwargs).arguments
            positions = bound["position_ids"]
            rest = {k: v for k, v in bound.items() if not isinstance(v, Tensor)}
            key = (id(module), repr(sorted(rest.items(), key=str)))
            if key not in self._known:
                self._known[key] = self._tabulate(module, rest)
            table = self._known[key]
            if table is None:
                result: tuple[Tensor, Tensor] = original(*args, **kwargs)
                return result
            if positions.ndim == 3:  # one row for each axis of an image: in a text they are one
                positions = positions[0]
            width = 2 * self.tables[table][0].shape[1]
            cos, sin = torch.ops.lepton.rotary_table(positions, table, width)
            return cos, sin

        return forward

    def _tabulate(self, module: nn.Module, rest: dict[str, Any]) -> int | None:
        with outside_trace():
            twin = copy.deepcopy(module)
            twin.__dict__.pop("forward", None)
            for name, buffer in _real_buffers(module).items():
                setattr(twin, name, buffer.clone())
            hidden = torch.zeros(1, 1, 1)
            everywhere = torch.arange(self.positions)[None]
            cos, sin = twin(hidden, position_ids=everywhere, **rest)
            few = torch.tensor([[min(5, self.positions - 1), 0, self.positions // 2]])
            near_cos, near_sin = twin(hidden, position_ids=few, **rest)
            if not (
                torch.equal(near_cos[0], cos[0][few[0]])
                and torch.equal(near_sin[0], sin[0][few[0]])
            ):
                return None
            half = cos.shape[-1] // 2
            if not (torch.equal(cos[..., :half], cos[..., half:])):
                return None
            self.tables.append(
                (cos[0, :, :half].float().numpy().copy(), sin[0, :, :half].float().numpy().copy())
            )
            return len(self.tables) - 1


def _real_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers' values, kept aside by ``meta.build`` when the model moved to the meta device."""
    kept: dict[str, Tensor] = getattr(module, "_lepton_buffers", {})
    return kept


def _is_rotary(module: nn.Module) -> bool:
    own = any("inv_freq" in name for name in module._buffers)
    if not own or next(module.parameters(), None) is not None:
        return False
    return "position_ids" in inspect.signature(module.forward).parameters


def _rotations(model: nn.Module) -> dict[str, Callable[..., Any]]:
    names = {type(module).__module__ for _, module in modules_of(model)}
    found = {name: getattr(sys.modules[name], _ROTATE, None) for name in sorted(names)}
    return {name: function for name, function in found.items() if function is not None}


def _settle(function: Callable[..., Any]) -> bool | None:
    """False: halves are rotated; True: neighbours are; None: something else."""
    with outside_trace():
        query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 1, 5, 8)
        angle = torch.randn(2, 5, 4)
        cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
        try:
            found = function(query, key, cos, sin)
        except Exception:  # another signature: not a rotation that we know
            return None
        for interleaved in (False, True):
            expected = [_reference(x, angle.cos(), angle.sin(), interleaved) for x in (query, key)]
            if all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True)):
                return interleaved
    return None


def _reference(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    cos, sin = cos[:, None], sin[:, None]
    if interleaved:
        first, second = x[..., 0::2], x[..., 1::2]
        pair = (first * cos - second * sin, second * cos + first * sin)
        return torch.stack(pair, -1).flatten(-2)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def _rotate(interleaved: bool, original: Callable[..., Any]) -> Callable[..., Any]:
    def rotate(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if args or kwargs.get("unsqueeze_dim", 1) != 1:
            rotated: tuple[Tensor, Tensor] = original(q, k, cos, sin, *args, **kwargs)
            return rotated
        apply = torch.ops.lepton.rotary
        return apply(q, cos, sin, interleaved), apply(k, cos, sin, interleaved)

    return rotate
