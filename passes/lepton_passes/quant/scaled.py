"""Mean squares of what layers read, which follow the factors that their inputs were divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

__all__ = ["ScaledEnergies"]


class ScaledEnergies(Mapping[str, np.ndarray]):
    """Energies of a graph, by the name of the weight that reads the input.

    Args:
        before: those of the graph as it was; a value is asked for when one is asked for here.
    """

    def __init__(self, before: Mapping[str, np.ndarray]) -> None:
        self.before = before
        self._factors: dict[str, Callable[[], np.ndarray]] = {}

    def divide(self, name: str, factors: Callable[[], np.ndarray]) -> None:
        """What the weight ``name`` reads is divided by ``factors()`` (columns,)."""
        self._factors[name] = factors

    def __getitem__(self, name: str) -> np.ndarray:
        factors = self._factors.get(name)
        energy = self.before[name]
        return energy if factors is None else energy / np.square(factors(), dtype=np.float64)

    def __contains__(self, name: object) -> bool:
        return name in self.before

    def __iter__(self) -> Iterator[str]:
        return iter(self.before)

    def __len__(self) -> int:
        return len(self.before)
