"""Rows of a text that a model picks by a mask of its tokens: the last of them.

BART and T5 classify a text by what they make of its last end token,

    x[ids == eos, :].view(batch, -1, width)[:, -1, :]

having checked that all texts have as many. How many rows a mask picks is unknown while a model is
traced, and so would be all that follows; which row of each text is the last one can be computed.
What is done otherwise with rows that a mask has picked is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lepton_compile.errors import ExportError
from lepton_compile.export.meta import code_of
from lepton_compile.export.swapped import swapped

__all__ = ["captured_picks", "last_row"]

_CHECK = "torch_compilable_check"


@contextmanager
def captured_picks(model: nn.Module) -> Iterator[None]:
    """Have rows that a mask picks stand for themselves until the last is asked for.

    What the model's code checks of the numbers in them is left to the numbers.
    """
    homes = [home for home in code_of(model) if _CHECK in vars(home)]
    unchecked = ((home, _CHECK, lambda *args, **kwargs: None) for home in homes)
    with swapped(*unchecked), _Picking() if homes else nullcontext():
        yield


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
        return last_row(self._x, self._mask)

    def __getattr__(self, name: str) -> Any:
        raise _unknown(name)


def last_row(x: Tensor, mask: Tensor) -> Tensor:
    """Of (batch, sequence, width) the last position that the mask has, (batch, width)."""
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (places * mask).amax(1)
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0]


def _unknown(how: str) -> ExportError:
    return ExportError("rows that a mask picks are used in a way that is not captured", found=how)
