"""Mean squares of what linear layers read, by column, from one run of the sample when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np
import onnx_ir as ir

from lepton_compile.progress import Step

from .calibrate import calibrate, inputs_of

__all__ = ["Energies"]

Feeds = Sequence[Mapping[str, np.ndarray]]


class Energies(Mapping[str, np.ndarray]):
    """By the name of the weight that reads the input: fp64 (columns,).

    Args:
        model: the neutral graph; copied, so passes may go on with it.
        feeds: called once, when the first is asked for.
        progress: (what, done, total).
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Callable[[], Feeds],
        *,
        progress: Step | None = None,
    ) -> None:
        self._model: ir.Model | None = model.clone()
        self._feeds, self._progress = feeds, progress
        self._names = {name for _, names in inputs_of(model) for name in names}
        self._found: dict[str, np.ndarray] = {}
        self._first = Lock()  # rows of weights, and what weighs them, are asked for by threads

    def collect(self) -> None:
        """Run the sample now, unless that was done: before there is less memory for it."""
        with self._first:
            if self._model is not None:
                ranges = calibrate(self._model, self._feeds(), self._progress)
                self._found = {each: seen.energy for each, seen in ranges.items()}
                self._model = None

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._names:
            self.collect()
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)
