"""What tests of TensorRT engines on the double share: an artifact's details, and looks inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lepton_compile.runtime import Model
from tests.runtime import tiny

__all__ = ["ALIASED", "BUCKETS", "GROWING", "PROMPTS", "Opener", "contexts_of", "engine"]

PROMPTS = [[2, 7, 9, 20], [5], [2, 33, 4, 18, 60, 11, 12], [2, 7, 9, 21]]
NAMES = [f"{number}.{kind}" for number in range(tiny.LAYERS) for kind in ("key", "value")]
ALIASED = {
    "cache": {"dtype": "float32", "capacity": tiny.ROOM, "aliased": True},
    "aliases": {f"present.{name}": f"past_key_values.{name}" for name in NAMES},
}
BUCKETS = (16, 40, tiny.ROOM)
GROWING = {"cache": {**ALIASED["cache"], "buckets": [*BUCKETS]}}  # type: ignore[dict-item]

Opener = Callable[..., Model]
"""Opens an artifact of a plan: ``opened`` of ``conftest``."""


def engine(model: Model) -> Any:
    """The engine behind a model."""
    return model.session.trt.made[-1]


def contexts_of(model: Model) -> list[int]:
    """Profiles of the contexts that were made, in order."""
    return [context.profile for context in engine(model).contexts]
