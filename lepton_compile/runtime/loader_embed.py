"""Texts as vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_compile.runtime.loader_batches import Batches

__all__ = ["Embeds"]


class Embeds(Batches):
    """An encoder that is used for its vectors."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector per text, (texts, hidden) float32: the model's own pooling, or the mean."""
        output = (self.manifest["embedding"] or {}).get("output", "last_hidden_state")
        rows = self.outputs_of(texts, output)
        return np.stack([row.mean(axis=0) if row.ndim == 2 else row for row in rows])
