"""The part that reads of a model whose texts and pictures become vectors of one space.

CLIP and SigLIP are published as one model of two towers; ``vision_part`` has what is said of the
other one. Each has a class of its own in transformers, which reads the whole's weights, and gives
the vector of a text beside its hidden states.

SigLIP (Zhai et al., 2023, arXiv:2303.15343) was trained on texts padded to one length. It attends
to the padding, and makes its vector of the last token, which mostly is padding: shorter texts
without it would be given other vectors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lepton_compile.errors import ExportError, RecipeError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "TextTower",
    "check_length",
    "has_towers",
    "own_vector",
    "reads_padding",
    "text_tower",
    "tower_alone",
    "tower_class",
    "tower_of",
]

OWN = ("text_embeds", "pooler_output")
"""What transformers calls a text's one vector, the best first: in the space that pictures share,
and what the model's own pooling gives."""


@dataclass(frozen=True)
class TextTower:
    """What reads: transformers' class for it, whether texts are ``padded`` to one length, and
    whether they are put in lower case (``lowers``), whatever tokenizer.json does."""

    architecture: str
    padded: bool = False
    lowers: bool = False


# By the model_type of the whole; that of the tower alone has _text_model behind it.
TOWERS = {
    "clip": TextTower("CLIPTextModelWithProjection"),
    "metaclip_2": TextTower("MetaClip2TextModelWithProjection"),
    "siglip": TextTower("SiglipTextModel", padded=True),
    "siglip2": TextTower("Siglip2TextModel", padded=True, lowers=True),
}


def tower_of(config: Any) -> TextTower | None:
    """The tower that a configuration is of, or has; None where it is no such model's."""
    return TOWERS.get(config.model_type.removesuffix("_text_model"))


def text_tower(config: PretrainedConfig, task: str) -> PretrainedConfig | None:
    """The configuration of what reads, where ``config`` is that of both towers.

    None where it is such a tower itself, and where the task is another than to embed texts.
    """
    part: Any = getattr(config, "text_config", None)
    if task != "feature-extraction" or config.model_type not in TOWERS or part is None:
        return None
    return tower_alone(config, part)


def tower_alone(whole: PretrainedConfig, part: PretrainedConfig) -> PretrainedConfig:
    """The configuration of one of several parts, with what the whole says of it."""
    made = copy.deepcopy(part)
    if hasattr(whole, "projection_dim"):
        made.projection_dim = whole.projection_dim  # which the whole goes by
    return made


def tower_class(config: PretrainedConfig) -> Any:
    """transformers' class for a tower; None for other models, and for a tower that was saved
    without its projection.

    Raises:
        ExportError: the model has two towers, and that for texts is not known here.
    """
    import transformers

    found, saved = tower_of(config), (getattr(config, "architectures", None) or [""])[0]
    if found is None and has_towers(saved):
        raise ExportError(
            "the vectors that this model makes of texts cannot be compiled",
            where="task: feature-extraction",
            found=saved,
            available=[f"models of type {name}" for name in TOWERS],
            hint="task: image-feature-extraction compiles what it makes of pictures",
        )
    if found is None or not (config.model_type in TOWERS or saved == found.architecture):
        return None
    return getattr(transformers, found.architecture)


def has_towers(architecture: str) -> bool:
    """Whether a class of transformers makes vectors of texts, and of pictures."""
    import transformers

    made = getattr(transformers, architecture, None)
    return hasattr(made, "get_text_features") and hasattr(made, "get_image_features")


def own_vector(found: Any) -> Any:
    """The vector of each text, (texts, width), of what such a class gives."""
    return next(found[name] for name in OWN if found.get(name) is not None)


def reads_padding(config: Any) -> bool:
    """Whether texts are padded to the longest that the model takes, and the padding is read."""
    found = tower_of(config)
    return found is not None and found.padded


def check_length(config: PretrainedConfig, wanted: int | None) -> None:
    """Refuse another length than that to which texts are padded, at which a model would compute
    what it was not trained for. Raises RecipeError."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if wanted is not None and wanted != longest and reads_padding(config):
        raise RecipeError(
            "the model was trained on texts that are padded to one length",
            where="shapes.sequence",
            found=str(wanted),
            available=[str(longest)],
            hint="leave shapes.sequence out",
        )
