"""Labels of texts and of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_chances import softmax

__all__ = ["Classifies"]


class Classifies(Batches):
    """An encoder that labels."""

    def classify(self, texts: Sequence[Any]) -> list[Any]:
        """Score by label of each text or pair, best first; of each token for token labels.

        Scores are chances, but for models that were trained to give other numbers.
        """
        labels, how = self.manifest["labels"] or {}, self.manifest["score"]
        rows = self.outputs_of(texts, "logits")
        if rows[0].ndim == 2:
            return [[_by_label(token, labels) for token in row] for row in rows]
        return [_by_label(row, labels, how) for row in rows]


def _by_label(logits: np.ndarray, labels: Mapping[str, str], how: Any = None) -> dict[str, float]:
    how = how or ("softmax" if len(logits) > 1 else "sigmoid")  # older artifacts do not say
    scores = logits if how == "none" else softmax(logits)
    scores = 1 / (1 + np.exp(-logits)) if how == "sigmoid" else scores
    return {labels.get(str(n), str(n)): float(scores[n]) for n in np.argsort(-scores)}
