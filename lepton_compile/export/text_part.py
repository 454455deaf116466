"""The language model inside a model that sees or hears, too.

Gemma 3 from 4B on, Mistral Small 3, LLaVA and their like are published as one model of several
parts. For text generation the language model is compiled, alone; transformers has a class for it,
and the checkpoint has its weights under another name.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["TEXT_ALONE", "own_name", "text_alone", "text_part"]

TEXT_ALONE = "task: text-generation takes the language model out of it"

# What a tensor of the language model is called in the whole, now and in older files. The head may
# stand beside it in both.
_INSIDE = (
    ("model.language_model.", "model."),
    ("model.text_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)


def text_part(config: PretrainedConfig, task: str) -> PretrainedConfig | None:
    """The configuration of the language model, where ``config`` is that of several parts.

    None where it is a language model itself, where the task is another one than generation, and
    where transformers has no class for the part alone.
    """
    from transformers import AutoModelForCausalLM

    text: PretrainedConfig | None = getattr(config, "text_config", None)
    if task != "text-generation" or text is None or config.is_encoder_decoder:
        return None
    if type(text) not in AutoModelForCausalLM._model_mapping:
        return None
    part = copy.deepcopy(text)
    # Said of the whole: the part's own word is the default of its class.
    part.tie_word_embeddings = config.tie_word_embeddings
    return part


def own_name(name: str) -> str:
    """What the language model alone calls a tensor of the whole; other parts keep their names."""
    for whole, own in _INSIDE:
        if name.startswith(whole):
            return own + name.removeprefix(whole)
    return name


def text_alone(config: PretrainedConfig) -> str:
    """What to do where a model cannot be compiled as a whole: of some the language model can."""
    found = text_part(config, "text-generation")
    return TEXT_ALONE if found is not None else "compile another model"
