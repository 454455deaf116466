"""Texts as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import outputs_of

__all__ = ["embed"]


def embed(model: Any, texts: Sequence[str]) -> np.ndarray:
    """See ``Model.embed``."""
    output = (model.manifest["embedding"] or {}).get("output", "last_hidden_state")
    rows = outputs_of(model, texts, output)
    return np.stack([row.mean(axis=0) if row.ndim == 2 else row for row in rows])
