"""What an engine and its reference are compared on, and one output of both."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.engine import Engine
from lepton_compile.numerics.metrics import Agreement, Comparison
from lepton_compile.numerics.verify_report import OutputReport

__all__ = ["Feed", "Output", "ends"]

SCORES = ("logits", "start_logits", "end_logits")


@dataclass(frozen=True)
class Feed:
    """Where the ids come from, and how many are wanted."""

    tokenizer: Any
    text: str | None
    tokens: int | None

    def enough(self, parts: list[list[int]]) -> list[list[int]]:
        """The first parts that reach the wanted number of tokens."""
        if self.tokens is None:
            return parts
        before = [0, *accumulate(map(len, parts))]
        return [part for part, start in zip(parts, before, strict=False) if start < self.tokens]


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


def ends(model: Engine, dimension: str) -> tuple[int, int]:
    """Least and most that the engine takes of a dimension."""
    low, high = model.manifest["ranges"][dimension]
    return int(low), int(high)
