"""Rows of a text that a model picks by a mask of its tokens: the last of them.

BART and T5 classify a text by what they make of its last end token,

    x[ids == eos, :].view(batch, -1, width)[:, -1, :]

having checked that all texts have as many. How many rows a mask picks is unknown while a model is
traced, and so would be all that follows; which row of each text is the last one can be computed.
What is done otherwise with rows that a mask has picked is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lepton_compile.errors import ExportError
from lepton_compile.export.meta import modules_of

__all__ = ["captured_picks"]

_CHECK = "torch_compilable_check"


@contextmanager
def captured_picks(model: nn.Module) -> Iterator[None]:
    """Have rows that a mask picks stand for themselves until the last is asked for.

    What the model's code checks of the numbers in them is left to the numbers.
    """
    homes = sorted({type(module).__module__ for _, module in modules_of(model)})
    spaces = [vars(sys.modules[home]) for home in homes if _CHECK in vars(sys.modules[home])]
    before = [space[_CHECK] for space in spaces]
    for space in spaces:
        space[_CHECK] = lambda *args, **kwargs: None
    try:
        with _Picking() if spaces else nullcontext():
            yield
    finally:
        for space, check in zip(spaces, before, strict=True):
            space[_CHECK] = check


class _Picking(TorchFunctionMode):
    """While active, ``x[mask]`` of (batch, sequence, width) by (batch, sequence) is rows."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.__getitem__:
            x, where = args
            rest = where[1:] if isinstance(where, tuple) else ()
            mask = where[0] if isinstance(where, tuple) and where else where
            if _picks(x, mask) and all(each == slice(None) for each in rest):
                return _Picked(x, mask)
        return func(*args, **(kwargs or {}))


def _picks(x: Tensor, mask: Any) -> bool:
    masks = isinstance(mask, Tensor) and mask.dtype == torch.bool
    return masks and x.device.type == "meta" and (x.ndim, mask.ndim) == (3, 2)


class _Picked:
    """Rows of texts, as many of each, or, once ``by_text``, those of each text by themselves."""

    def __init__(self, x: Tensor, mask: Tensor, *, by_text: bool = False) -> None:
        self._x, self._mask, self._by_text = x, mask, by_text

    @property
    def shape(self) -> tuple[Any, ...]:
        """As if there were one row of each text: for checks of their number, and the width."""
        return self._x.shape[0], self._x.shape[-1]

    def view(self, *sizes: Any) -> _Picked:
        wanted = (self._x.shape[0], -1, self._x.shape[-1])
        if self._by_text or [str(size) for size in sizes] != [str(size) for size in wanted]:
            raise _unknown("view")
        return _Picked(self._x, self._mask, by_text=True)

    def __getitem__(self, where: Any) -> Tensor:
        if not self._by_text or where != (slice(None), -1, slice(None)):
            raise _unknown(str(where))
        places = torch.arange(self._mask.shape[1], device=self._mask.device)
        last = (places * self._mask).amax(1)
        rows = last[:, None, None].expand(-1, 1, self._x.shape[-1])
        return self._x.gather(1, rows)[:, 0]

    def __getattr__(self, name: str) -> Any:
        raise _unknown(name)


def _unknown(how: str) -> ExportError:
    return ExportError("rows that a mask picks are used in a way that is not captured", found=how)
