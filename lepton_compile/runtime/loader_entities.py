"""Entities: tokens in a row with one label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_chances import softmax

__all__ = ["Entities"]


class Entities(Batches):
    """An encoder that labels tokens."""

    def entities(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Entities of each text in order: label, score, text, start and end (characters).

        Tokens in a row of one label are an entity, and ``B-`` begins another; ``O`` is none. The
        score is the mean of their chances.
        """
        labels, rows = self.manifest["labels"] or {}, self.outputs_of(texts, "logits", "")
        encoded = self.tokenizer.encode_batch([*texts])
        parts = zip(texts, encoded, rows, strict=True)
        return [_grouped(text, one, row, labels) for text, one, row in parts]


def _grouped(text: str, encoded: Any, row: np.ndarray, labels: Mapping[str, str]) -> list[Any]:
    groups: list[tuple[str, list[float], list[int]]] = []
    for (start, end), special, logits in zip(
        encoded.offsets, encoded.special_tokens_mask, row, strict=True
    ):
        if special:
            continue
        chances = softmax(logits)
        best = int(chances.argmax())
        label = labels.get(str(best), str(best))
        kind = label[2:] if label[:2] in ("B-", "I-") else label
        if label[:2] == "B-" or not groups or groups[-1][0] != kind:
            groups.append((kind, [], [start, end]))
        groups[-1][1].append(float(chances[best]))
        groups[-1][2][1] = end
    return [
        {
            "label": kind,
            "score": sum(chances) / len(chances),
            "text": text[slice(*span)],
            "start": span[0],
            "end": span[1],
        }
        for kind, chances, span in groups
        if kind != "O"
    ]
