"""Pictures as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_embed import Embeds
from lepton_compile.runtime.loader_guard import refuse
from lepton_compile.runtime.loader_images import Sees

__all__ = ["SeesVectors"]


class SeesVectors(Sees, Embeds):
    """A model that makes a vector of each picture."""

    def embed(self, images: Sequence[Any], prompt: str | None = None) -> np.ndarray:
        """Vectors (rows, width) float32 of pictures, or of texts with ``prompt`` before each."""
        if self.task != "image-feature-extraction":
            return super().embed(images, prompt)
        refuse(prompt is not None, "images have no prompts")
        own = self.manifest["embedding"]
        refuse(not own, "this model has no image embedding, run() its features alone")
        return self.seen(images, own["output"])
