"""Logits by label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_chances import softmax

__all__ = ["by_label"]


def by_label(logits: np.ndarray, labels: Mapping[str, str], how: Any = None) -> dict[str, float]:
    """Scores, best first; ``how`` they are made older artifacts do not say."""
    alone = how == "sigmoid" or (not how and len(logits) == 1)
    scores = 1 / (1 + np.exp(-logits)) if alone else logits if how == "none" else softmax(logits)
    return {labels.get(str(n), str(n)): float(scores[n]) for n in np.argsort(-scores)}
