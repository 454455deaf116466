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
        """Chance by label of each text or pair, likeliest first; of each token for token labels."""
        labels = self.manifest["labels"] or {}
        rows = self.outputs_of(texts, "logits")
        if rows[0].ndim == 2:
            return [[_by_label(token, labels) for token in row] for row in rows]
        return [_by_label(row, labels) for row in rows]


def _by_label(logits: np.ndarray, labels: Mapping[str, str]) -> dict[str, float]:
    chances = softmax(logits) if len(logits) > 1 else 1 / (1 + np.exp(-logits))
    return {labels.get(str(n), str(n)): float(chances[n]) for n in np.argsort(-chances)}
