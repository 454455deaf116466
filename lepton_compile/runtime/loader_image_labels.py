"""Labels of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lepton_compile.runtime.loader_classify import Classifies
from lepton_compile.runtime.loader_images import Sees
from lepton_compile.runtime.loader_labels import by_label

__all__ = ["SeesLabels"]


class SeesLabels(Sees, Classifies):
    """A model that labels pictures."""

    def classify(self, images: Sequence[Any]) -> list[Any]:
        """Score by label of each picture, or of each text or pair of texts, best first."""
        if self.task != "image-classification":
            return super().classify(images)
        labels, how = self.manifest["labels"] or {}, self.manifest["score"]
        return [by_label(row, labels, how) for row in self.seen(images, "logits")]
