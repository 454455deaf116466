"""Labels of texts and of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import outputs_of
from lepton_compile.runtime.loader_chances import softmax

__all__ = ["classify"]


def classify(model: Any, texts: Sequence[Any]) -> list[Any]:
    """See ``Model.classify``."""
    labels = model.manifest["labels"] or {}
    rows = outputs_of(model, texts, "logits")
    if rows[0].ndim == 2:
        return [[_by_label(token, labels) for token in row] for row in rows]
    return [_by_label(row, labels) for row in rows]


def _by_label(logits: np.ndarray, labels: Mapping[str, str]) -> dict[str, float]:
    chances = softmax(logits) if len(logits) > 1 else 1 / (1 + np.exp(-logits))
    return {labels.get(str(n), str(n)): float(chances[n]) for n in np.argsort(-chances)}
