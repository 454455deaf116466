"""Pictures on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["pictured"]


def pictured(model: Any, image: list[str]) -> Iterator[str]:
    """What the model's task makes of each picture, as JSON."""
    for one in image:
        if model.task == "image-feature-extraction":
            yield json.dumps({"image": one, "embedding": model.embed([one])[0].tolist()}) + "\n"
        if model.task == "image-classification":
            yield json.dumps({"image": one, "labels": model.classify([one])[0]}) + "\n"
