"""Logits of whole rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing
from lepton_compile.runtime.loader_opened import Opened

__all__ = ["Scores"]


class Scores(Opened):
    """A model that gives logits."""

    def logits(self, ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Logits (batch, sequence, vocabulary) float32 of one row of ids, or rows of any length.

        Shorter rows are padded on the right; where the mask is zero the logits mean nothing.
        """
        with failing("logits takes token ids, or rows of them"):
            rows = ids if np.ndim(ids[0]) else [ids]
            width = max(len(row) for row in rows)
        whole = [[*row, *[0] * (width - len(row))] for row in rows]
        mask = np.arange(width) < np.array([[len(row)] for row in rows])
        mask = mask if attention_mask is None else attention_mask
        return self.run({"input_ids": whole, "attention_mask": mask}, ["logits"])["logits"]
