"""Sums of ``x x^T`` of what linear layers read, collected when somebody asks for one.

All of a model at once may be larger than its weights. So the sample is run for as many layers as
fit into a budget, beginning with the one asked for and going on in the order of the graph; the next
one outside them drops these and runs the sample again. A matrix is let go with the last weight that
asks for it: what comes behind, such as a check, needs the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from lepton_compile.progress import Step
from lepton_passes.quant.products import product

from .calibrate import inputs_of, observe

__all__ = ["BUDGET", "Hessian", "Hessians"]

BUDGET = 512 << 20
"""Bytes of matrices that are held at a time where a recipe sets no ceiling."""

Feeds = Sequence[Mapping[str, np.ndarray]]


class Hessian:
    """The sum over the rows that it sees, fp32 (width, width)."""

    def __init__(self) -> None:
        self.matrix = np.zeros((0, 0), dtype=np.float32)

    def see(self, rows: np.ndarray) -> None:
        """Add the products of ``rows`` (..., width)."""
        flat = rows.reshape(-1, rows.shape[-1])
        found = product(flat.T, flat)
        if self.matrix.size:
            self.matrix += found
        else:
            self.matrix = found


class Hessians(Mapping[str, np.ndarray]):
    """By the name of the weight that reads the input; whoever asks for one twice waits twice.

    Args:
        model: the neutral graph; copied, so passes may go on with it.
        feeds: called once, when the first matrix is asked for.
        budget: bytes of matrices to hold at a time; one is held whatever it takes.
        progress: (what, done, total).
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Callable[[], Feeds],
        *,
        budget: int = BUDGET,
        progress: Step | None = None,
    ) -> None:
        self._model = model.clone()
        self._make_feeds = feeds
        self._feeds: Feeds | None = None
        self._budget, self._progress = budget, progress
        self._inputs = inputs_of(model)
        self._place = {name: i for i, (_, names) in enumerate(self._inputs) for name in names}
        self._held: dict[str, Hessian] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._held:
            self._held = {}  # before the next ones are made, not after
            self._held = self._collect(self._place[name])
        return self._held.pop(name).matrix

    @property
    def most(self) -> int:
        """Bytes of matrices that are held at a time."""
        sizes = [4 * width * width for width, _ in self._inputs]
        return max(min(sum(sizes), self._budget), max(sizes, default=0))

    def __contains__(self, name: object) -> bool:
        return name in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def _collect(self, first: int) -> dict[str, Hessian]:
        wanted: set[str] = set()
        room = self._budget
        for width, names in self._inputs[first:]:
            room -= 4 * width * width
            if wanted and room < 0:
                break
            wanted.update(names)
        if self._feeds is None:
            self._feeds = self._make_feeds()
        return observe(self._model, self._feeds, Hessian, wanted=wanted, progress=self._progress)
