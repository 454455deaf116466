"""An encoder's plan: arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_plan import Plan
from lepton_compile.runtime.loader_tensors import NUMPY, for_engine, from_engine

__all__ = ["Encoder"]


class Encoder(Plan):
    """An engine that is run once for an answer."""

    def open(self, plan: bytes, kernels: Any) -> None:
        """Deserialize the plan, and make its one context."""
        super().open(plan, kernels)
        self._context = self.context(0, graphs=False)

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs ``names`` for the inputs ``feeds``.

        Memory is kept from run to run, and grows with the largest shape so far: the largest that
        the profile allows may be gigabytes that no caller ever asks for.
        """
        given = {name: for_engine(feeds[name], self.kinds[name]) for name in self.inputs}
        self._context.shape({name: array.shape for name, array in given.items()})
        found = {
            name: np.empty(self._context.output(name), NUMPY[self.kinds[name]])
            for name in self.outputs
        }
        places = {name: self.room(name, array.nbytes) for name, array in (given | found).items()}
        self._context.place(places)
        try:
            for name, array in given.items():
                self.device.copy_in(places[name], array, self.stream)
            self._context.run()
            for name in names:
                self.device.copy_out(found[name], places[name], self.stream)
        finally:
            self.wait()
        return [from_engine(found[name], self.kinds[name]) for name in names]
