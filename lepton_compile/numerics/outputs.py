"""What is added up of one output while an engine is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.metrics import Agreement, Comparison
from lepton_compile.numerics.verify_report import OutputReport

__all__ = ["Output"]

SCORES = ("logits", "start_logits", "end_logits")


class Output:
    """The accumulators of one output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.comparison = Comparison()
        self.agreement = Agreement() if name in SCORES else None

    def update(self, reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> None:
        if reference.ndim == 2 and reference.shape[-1] == 1:
            self._update_scores(reference[:, 0], candidate[:, 0])
            return
        self.comparison.update(reference, candidate)
        if self.agreement is not None:
            self.agreement.update(reference, candidate)

    def _update_scores(self, reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> None:
        """One number for each text, as rerankers give: those of a batch are a vector, and of each
        pair of texts the same one has to come first."""
        self.comparison.update(reference[None], candidate[None])
        if self.agreement is not None:
            left, right = np.triu_indices(len(reference), 1)
            pairs = [
                np.stack([scores[left], scores[right]], -1) for scores in (reference, candidate)
            ]
            self.agreement.update(*pairs)

    def report(self) -> OutputReport:
        rows = self.agreement
        if rows is None:
            return OutputReport(self.name, self.comparison.result())
        return OutputReport(self.name, self.comparison.result(), rows.ratio, rows.total, rows.ties)
