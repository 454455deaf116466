"""Words of a sparse embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_embed import Embeds
from lepton_compile.runtime.loader_guard import refuse

__all__ = ["Weighs"]


class Weighs(Embeds):
    """An encoder whose vectors have a place for each word."""

    def words(
        self, texts: Sequence[str], prompt: str | None = None, top_k: int | None = None
    ) -> list[dict[str, float]]:
        """Of each text the tokens that weigh anything, or the ``top_k`` heaviest, by weight."""
        bad = top_k is True or not isinstance(top_k, int | np.integer | None)
        refuse(bad or (top_k is not None and top_k < 1), f"out of its range: {top_k=!r:.60}")
        return [self._words(row, top_k) for row in self.embed(texts, prompt)]

    def _words(self, row: Any, top_k: int | None) -> dict[str, float]:
        order = np.argsort(-row, kind="stable")[: np.count_nonzero(row > 0)][:top_k]
        names = ((self.tokenizer.id_to_token(n) or f"[{n}]", row[n]) for n in order.tolist())
        return {name: float(weight) for name, weight in names}
