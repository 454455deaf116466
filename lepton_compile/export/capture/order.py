"""Sets that a model's own code walks through, in one order in every process.

``for layer_type in set(config.layer_types)`` makes the rotary tables of several families in the
order of hashes, which Python salts anew for each process: nodes of a graph would come in another
order, an artifact in other bytes. While the context is open, ``set`` in the model's modules sorts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lepton_compile.export.meta import modules_of

__all__ = ["ordered_sets"]


class _Sorted(set[Any]):
    """A set whose elements come sorted by what they look like."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=repr))


@contextmanager
def ordered_sets(model: nn.Module) -> Iterator[None]:
    """Let ``set(…)`` in the modules that define ``model`` give sorted ones."""
    names = {type(module).__module__ for _, module in modules_of(model)}
    # torch's own code is run by every model and walks through no sets while it is traced.
    spaces = [vars(sys.modules[n]) for n in sorted(names) if not n.startswith("torch.")]
    spaces = [space for space in spaces if "set" not in space]
    for space in spaces:
        space["set"] = _Sorted
    try:
        yield
    finally:
        for space in spaces:
            del space["set"]
