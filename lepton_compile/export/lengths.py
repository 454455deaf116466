"""How long the texts are that a model is compiled for."""

from __future__ import annotations

from typing import Any

from lepton_compile.errors import ExportError, RecipeError

from .text_tower import check_length
from .trace import EXAMPLE_SIZES

__all__ = ["DEFAULT_LENGTH", "longest_sequence"]

# Longest sequence where neither recipe nor model says less: rotary tables grow with it.
DEFAULT_LENGTH = 4096

# Whose positions start after the padding index, which takes two rows of their table.
_BEHIND_PADDING = (
    *("camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)


def longest_sequence(config: Any, wanted: int | None, name: str = "sequence") -> int:
    """The longest sequence to compile for: the recipe's wish within the model's limit.

    Args:
        name: of the dimension, in the recipe's ``shapes`` and in a trace.

    Raises:
        RecipeError: the recipe asks for fewer tokens than a trace takes, for more positions than
            the model has, or for others than it was trained on.
        ExportError: the model has fewer than a trace takes.
    """
    check_length(config, wanted)
    traced, limit = EXAMPLE_SIZES[name], _limit(config)
    if limit is not None and limit < traced:
        raise ExportError(
            "the model takes fewer tokens than a model is traced with",
            where="max_position_embeddings of its configuration",
            found=f"positions for {limit} tokens",
            available=[f"{traced} and more"],
            hint="correct the configuration where the weights have more; else take another model",
        )
    if wanted is not None and wanted < traced:
        raise RecipeError(
            "the longest sequence is shorter than what a model is traced with",
            where=f"shapes.{name}",
            found=str(wanted),
            available=[f"an end from {traced} on"],
            hint=f"write 1..{traced} or more: shorter sequences are among them",
        )
    if wanted is not None and limit is not None and wanted > limit:
        raise RecipeError(
            "the recipe asks for longer sequences than the model can take",
            where=f"shapes.{name}",
            found=str(wanted),
            available=[f"at most {limit}"],
            hint=f"write 1..{limit} or less, or leave it out",
        )
    return wanted or min(limit or DEFAULT_LENGTH, DEFAULT_LENGTH)


def _limit(config: Any) -> int | None:
    """Positions of a model; None where nothing limits them."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_target_positions")
    limit = next((found for name in names if (found := getattr(text, name, None))), None)
    if limit is None or limit < 1:  # XLNet says -1: no limit
        return None
    return int(limit) - 2 * (config.model_type in _BEHIND_PADDING)
