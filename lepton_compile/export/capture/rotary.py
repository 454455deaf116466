"""Rotary position embedding: its tables and its rotation, settled by numbers.

A rotary module is one without parameters whose buffers hold inverse frequencies. Its cos and sin,
or the complex number made of both, are computed once for every position the engine will see; the
module is captured only when a row depends on its own position alone (dynamic scaling does not, and
stays as the model wrote it).
RoPE: Su et al., 2021, https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError
from lepton_compile.export import ops  # noqa: F401  # defines torch.ops.lepton
from lepton_compile.export.meta import code_of, modules_of
from lepton_compile.export.swapped import swapped

from .probe import outside_trace
from .rotation import Turns, settle
from .tables import columns_by_axis, tabulated

__all__ = ["RotaryCapture"]

# Where a model's code calls cos and sin by name, and where it has them as one complex number.
_ROTATE = ("apply_rotary_pos_emb", "apply_rotary_emb")


class RotaryCapture:
    """Captures the rotary modules of one model and collects their tables.

    ``tables[i]`` is (cos, sin), each fp32 of shape (positions, rotary width / 2). ``foresees`` says
    whether rows depend on other positions of a call than their own (LongRoPE, dynamic scaling).
    """

    def __init__(self, positions: int) -> None:
        self.positions = positions
        self.tables: list[tuple[np.ndarray, np.ndarray]] = []
        self.foresees, self.near_to = False, 0
        self._known: dict[tuple[int, str], _Noted | None] = {}
        self._doubled = False  # as the model's functions read cos and sin, see ``Rotation``

    @contextmanager
    def patched(self, model: nn.Module) -> Iterator[None]:
        functions = _functions(model)
        settled = {place: settle(function) for place, function in functions.items()}
        known = {place: rotation for place, rotation in settled.items() if rotation is not None}
        layouts = {rotation.doubled for rotation in known.values()}
        if len(known) < len(settled) or len(layouts) != 1:
            yield  # someone reads cos and sin in a way we do not know: leave both alone
            return
        self._doubled = layouts.pop()
        modules = [m for _, m in modules_of(model) if _is_rotary(m)]
        rows = [(m, "forward", self._forward(m, m.forward)) for m in modules]
        turns = [(*place, turn.captured(functions[place])) for place, turn in known.items()]
        with swapped(*rows, *turns):
            yield

    def _forward(self, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def forward(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs).arguments
            positions = bound["position_ids"]
            rest = {k: v for k, v in bound.items() if not isinstance(v, Tensor)}
            key = (id(module), repr(sorted(rest.items(), key=str)))
            if key not in self._known:
                self._known[key] = self._noted(module, rest)
            found = self._known[key]
            if positions.ndim == 3 and not positions.stride(0):  # axes of a text, which are one
                positions = positions[0]
            if found is None:
                return original(*args, **kwargs)
            if positions.ndim < 3:
                return found.rows(positions)
            return found.rows_by_axis(positions, self._axes(module, rest, found))

        return forward

    def _axes(self, module: nn.Module, rest: dict[str, Any], found: _Noted) -> tuple[int, ...]:
        """Which axis of its positions each column of a module's rows goes by.

        Raises:
            ExportError: its rows are not so.
        """
        with outside_trace():
            axes = columns_by_axis(
                partial(_real_run, module, rest=rest), self.tables[found.near], self._doubled
            )
        if axes is None or found.far is not None or found.joint:
            raise ExportError(
                "positions with several axes turn heads in a way that is not known",
                where="rope_parameters of its configuration",
                found=f"rope_type: {getattr(module, 'rope_type', None)}",
            )
        return axes

    def _noted(self, module: nn.Module, rest: dict[str, Any]) -> _Noted | None:
        """What stands for a module; None where its rows are in no table."""
        with outside_trace():
            run = partial(_real_run, module, rest=rest)
            found = tabulated(run, self.positions, self._doubled)
        self.foresees |= found is None or found.far is not None
        if found is not None and found.far is not None:
            self.near_to = found.limit
        if found is None:
            return None
        near = self._number(found.near)
        far = None if found.far is None else self._number(found.far)
        return _Noted(near, far, found.limit, 2 * found.near[0].shape[1], found.joint)

    def _number(self, rows: tuple[np.ndarray, np.ndarray]) -> int:
        """That of a table, which each layer's own module may give anew (Moshi)."""
        for number, (cos, sin) in enumerate(self.tables):
            if np.array_equal(cos, rows[0]) and np.array_equal(sin, rows[1]):
                return number
        self.tables.append(rows)
        return len(self.tables) - 1


@dataclass(frozen=True)
class _Noted:
    """The numbers of a module's tables: ``far`` for calls with a position from ``limit`` on."""

    near: int
    far: int | None
    limit: int
    width: int
    joint: bool

    def rows(self, positions: Tensor) -> Any:
        """What the module gives, from the tables."""
        cos, sin = torch.ops.lepton.rotary_table(positions, self.near, self.width)
        if self.far is not None:
            far = torch.ops.lepton.rotary_table(positions, self.far, self.width)
            beyond = positions.max() >= self.limit
            cos, sin = torch.where(beyond, far[0], cos), torch.where(beyond, far[1], sin)
        return Turns(cos, sin) if self.joint else (cos, sin)

    def rows_by_axis(self, positions: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The same of positions (axes, batch, sequence); each column goes by one of the axes."""
        cos, sin = torch.ops.lepton.rotary_axes(positions, self.near, self.width, axes)
        return cos, sin


def _real_run(module: nn.Module, positions: Tensor, rest: dict[str, Any]) -> Any:
    """What a module gives for positions, as if it had seen no others before."""
    real = {name: buffer.clone() for name, buffer in _real_buffers(module).items()}
    # What stands for the buffers in the trace is not copied: it would take the trace with it.
    instead = {id(module._buffers[name]): real[name] for name in real if name in module._buffers}
    twin = copy.deepcopy(module, instead)
    twin.__dict__.pop("forward", None)
    for name, buffer in real.items():
        setattr(twin, name, buffer)
    each = positions if positions.ndim == 3 else positions[None]
    return twin(torch.zeros(1, 1, 1), position_ids=each, **rest)


def _real_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers' values, kept aside by ``meta.build`` when the model moved to the meta device."""
    kept: dict[str, Tensor] = getattr(module, "_lepton_buffers", {})
    return kept


def _is_rotary(module: nn.Module) -> bool:
    own = any("inv_freq" in name for name in module._buffers)
    if not own or next(module.parameters(), None) is not None:
        return False
    return "position_ids" in inspect.signature(module.forward).parameters


def _functions(model: nn.Module) -> dict[tuple[ModuleType, str], Callable[..., Any]]:
    """What turns heads in the code of a model: (module, name) -> function."""
    homes = code_of(model)
    return {(h, n): vars(h)[n] for h in homes for n in _ROTATE if vars(h).get(n) is not None}
