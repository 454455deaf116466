"""The fp32 model of PyTorch with some of its weights rounded, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lepton_passes.tensors import rows_of

from .units import Part, Unit

__all__ = ["Rounder", "blocks_of"]

_ELEMENTS = 1 << 22
"""Elements of a weight that are worked on at a time."""


class Rounder:
    """Writes weights into a model as formats store them.

    The values come from the graph's tensors each time, which is what passes round; nothing is kept.

    Args:
        module: the model.
        energies: mean squares of what linear layers read, by the name of the weight.
    """

    def __init__(self, module: Any, energies: Mapping[str, np.ndarray]) -> None:
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        self._energies = energies
        self._state: dict[str, int | None] = {}

    def parameter(self, part: Part) -> Any:
        """The parameter that holds the same numbers; None where there is none.

        A weight that capture transposed, or took out of a larger one, has none.
        """
        import torch

        found = self._parameters.get(part.name)
        if found is None or tuple(found.shape) != (part.rows, part.columns):
            return None
        if self._state.get(part.name) is not None:  # rounded, so it was found before
            return found
        row = torch.from_numpy(np.array(rows_of(part.tensor, 0, 1), dtype=np.float32))
        return found if torch.equal(found.data[:1], row) else None

    def energy(self, part: Part) -> np.ndarray | None:
        """Mean squares of what its columns read; None for a table that is only looked up."""
        return self._energies.get(part.name)

    def apply(self, units: Sequence[Unit], bits: Sequence[int | None]) -> None:
        """Let the model hold each unit in so many bits."""
        for unit, wanted in zip(units, bits, strict=True):
            for part in unit.parts:
                if self._state.get(part.name) != wanted:
                    self._write(part, wanted)
                    self._state[part.name] = wanted

    def _write(self, part: Part, bits: int | None) -> None:
        import torch

        data, energy = self._parameters[part.name].data, self.energy(part)
        for start, w in blocks_of(part):
            rows = torch.from_numpy(part.rounded(w, bits, energy).astype(np.float32))
            data[start : start + len(w)].copy_(rows)


def blocks_of(part: Part, share: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows, a block at a time; of ``share`` blocks the first alone."""
    step = max(1, _ELEMENTS // part.columns)
    for start in range(0, part.rows, step * share):
        rows = rows_of(part.tensor, start, min(part.rows, start + step))
        yield start, np.asarray(rows, dtype=np.float32)
