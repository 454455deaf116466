"""Labels of texts and of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_labels import by_label

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
            return [[by_label(token, labels) for token in row] for row in rows]
        return [by_label(row, labels, how) for row in rows]
