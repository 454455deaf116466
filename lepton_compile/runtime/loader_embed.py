"""Texts as vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_guard import refuse

__all__ = ["Embeds"]


class Embeds(Batches):
    """An encoder that is used for its vectors."""

    def embed(self, texts: Sequence[str], prompt: str | None = None) -> np.ndarray:
        """Vectors (texts, width) float32 of texts behind the model's ``prompt`` of that name."""
        own = self.manifest["embedding"] or {"output": "last_hidden_state"}
        prompts = {"": "", **(own.get("prompts") or {})}
        name = (own.get("prompt") or "") if prompt is None else prompt
        refuse(name not in [*prompts], f"there is no prompt {name!r}; there are {[*prompts][1:]}")
        rows = self.outputs_of(texts, own["output"], prompts[name])
        return np.stack([row.mean(axis=0) if row.ndim == 2 else row for row in rows])
