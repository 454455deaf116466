"""Every kind of model that a GPU is tried with, and those that it has no kernels for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.export import zoo, zoo_images, zoo_pairs
from tests.export.hybrids import HYBRIDS

Config = Callable[[], Any]

DECODERS: dict[str, Config] = {
    **{name: case[0] for name, case in zoo.DECODERS.items()},
    **{name: case[0] for name, case in zoo.MORE_DECODERS.items()},
    **{name: case[0] for name, case in zoo.SHARING.items()},
    **{name: case.config for name, case in HYBRIDS.items()},
}
ENCODERS: dict[str, Config] = {
    name: case[0] for name, case in (zoo.ENCODERS | zoo.MORE_ENCODERS).items()
}
PAIRS: dict[str, Config] = {name: case[0] for name, case in zoo_pairs.PAIRS.items()}
IMAGES: dict[str, tuple[Config, str]] = {
    **{name: (case[0], "image-feature-extraction") for name, case in zoo_images.FEATURES.items()},
    **{name: (case[0], "image-classification") for name, case in zoo_images.CLASSIFIERS.items()},
}

MODELS: dict[tuple[str, str], Config] = {
    **{("text-generation", name): config for name, config in DECODERS.items()},
    **{("feature-extraction", name): config for name, config in ENCODERS.items()},
    **{("text2text-generation", name): config for name, config in PAIRS.items()},
    **{(task, name): config for name, (config, task) in IMAGES.items()},
}
"""By task and name."""

_GATE = "experts with such a gate run for ort-cpu alone"
_KERNEL = "the CUDA provider has no such kernel"  # GroupNormalization
REFUSED = {
    ("text-generation", "gemma4-moe"): _GATE,
    ("text-generation", "mixtral-gelu"): _GATE,
    ("text-generation", "mixtral-relu"): _GATE,
    ("text-generation", "nemotron-h"): _GATE,
    ("image-feature-extraction", "bit"): _KERNEL,
    ("image-feature-extraction", "mobilevit-v2"): _KERNEL,
    ("image-feature-extraction", "poolformer"): _KERNEL,
}
"""Why there is no engine."""
