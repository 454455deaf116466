"""Vision towers for pictures of any size, as graphs: what each makes of patches, of which every one
comes with its row and its column.

transformers' code of a tower reads a picture's size as numbers, by which a trace would be of one
size alone. So its embeddings, positions and attention are written anew here; its layers stay.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from lepton_compile.export.image_text_kinds import GEMMA4, GLM, PADDLEOCR, has_pixtral

from . import gemma4, glm, paddleocr_vl, pixtral, qwen_vl

__all__ = ["tower_of"]


def tower_of(config: Any) -> ModuleType:
    """The module for a model's tower: ``attend(network)``, once, and ``features(network, pixels,
    places)``."""
    if has_pixtral(config):
        return pixtral
    if config.model_type in PADDLEOCR:
        return paddleocr_vl
    if config.model_type in GLM:
        return glm
    return gemma4 if config.model_type in GEMMA4 else qwen_vl
