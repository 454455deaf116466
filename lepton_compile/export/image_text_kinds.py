"""Kinds of vision-language models, by ``model_type``; those in one line are made alike."""

from __future__ import annotations

from typing import Any

__all__ = [
    "GEMMA3",
    "GEMMA4",
    "GLM",
    "IDEFICS3",
    "IMAGE_TEXT_KINDS",
    "INTERNVL",
    "LIGHTON",
    "LLAVA",
    "MISTRAL3",
    "PADDLEOCR",
    "PIXTRAL",
    "QWEN_VL",
    "has_pixtral",
]

IDEFICS3 = ("idefics3", "smolvlm")
"""A tower for pictures of any form, given whole tiles; a prompt marks each tile by its place."""
LLAVA = ("llava",)
"""Projected outputs of chosen layers of a tower, which stand in a prompt without marks."""
INTERNVL = ("internvl",)
"""As LLaVA's, of one layer, neighbours put together; marks stand around all tiles of a picture."""
GEMMA3 = ("gemma3",)
"""Pooled outputs of a tower; the tokens of a picture see each other, also later ones."""
QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""A tower for pictures of any size, of which a token is so many patches; a token's position has a
row and a column."""
GEMMA4 = ("gemma4",)
"""A tower for pictures of any size, whose patches are averaged; of a larger model the tokens of a
picture see each other in some layers."""
MISTRAL3 = ("mistral3",)
"""Pixtral's tower; marks stand behind each row of a picture's tokens."""
PIXTRAL = "pixtral"
"""A tower for pictures of any size, which a LLaVA may have, too."""
PADDLEOCR = ("paddleocr_vl",)
"""A tower for pictures of any size; positions of their tokens are those of Qwen-VL."""
LIGHTON = ("lighton_ocr",)
"""Pixtral's tower, too, and no marks."""
GLM = ("glm4v", "glm46v", "glm_ocr")
"""Towers with the blocks of Qwen-VL's, and the same positions."""
IMAGE_TEXT_KINDS = (
    *IDEFICS3,
    *LLAVA,
    *INTERNVL,
    *GEMMA3,
    *QWEN_VL,
    *GEMMA4,
    *MISTRAL3,
    *PADDLEOCR,
    *GLM,
    *LIGHTON,
)


def has_pixtral(config: Any) -> bool:
    """Whether a model's tower is Pixtral."""
    tower = getattr(config, "vision_config", None)
    of_kind = config.model_type in (*MISTRAL3, *LLAVA, *LIGHTON)
    return of_kind and getattr(tower, "model_type", None) == PIXTRAL
