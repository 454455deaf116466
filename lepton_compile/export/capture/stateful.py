"""Models call our functions in place of their own where these have a state (``scans.py``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from lepton_compile.export.meta import modules_of

from .probe import outside_trace
from .scans import FUNCTIONS
from .states import StateCapture, under_way

__all__ = ["capture_states"]


@contextmanager
def capture_states(model: nn.Module) -> Iterator[StateCapture]:
    """Have the model's modules call our functions while the context is open."""
    homes = {type(module).__module__ for _, module in modules_of(model)}
    spaces = [vars(sys.modules[home]) for home in sorted(homes) if home in sys.modules]
    under_way.append(StateCapture())
    before = [
        (space, name, space[name])
        for space in spaces
        for name, (_, sample) in FUNCTIONS.items()
        if name in space and (sample is None or _same(space[name], name))
    ]
    for space, name, _ in before:
        space[name] = FUNCTIONS[name].function
    try:
        yield under_way[-1]
    finally:
        under_way.pop()
        for space, name, function in before:
            space[name] = function


@lru_cache
def _same(theirs: Callable[..., Any], name: str) -> bool:
    """Whether our function of this name gives what ``theirs`` does on its sample."""
    ours, sample = FUNCTIONS[name]
    assert sample is not None
    theirs = getattr(theirs, "__wrapped__", theirs)  # past the notice that it is slow
    with outside_trace(), torch.no_grad():
        args, kwargs = sample()
        try:
            expected, found = (function(*args, **kwargs) for function in (theirs, ours))
        except Exception:  # another signature: not what we know by this name
            return False
        first, second = (out[0] if isinstance(out, tuple) else out for out in (expected, found))
        return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-5)
