"""Configuration and tokenizer of a GGUF file, from its metadata.

transformers can read both with ``gguf_file=``, but walks the vocabulary with numpy objects: 27 s
and 1.6 GB for Gemma. Here its tables are used (pure data) with our own header reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader, read_header
from lepton_compile.export.checkpoint.gguf_layout import ARCHITECTURES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["config_of", "tokenizer_of"]

MODEL_TYPES = {"gemma3": "gemma3_text"}
SPECIAL_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}


def config_of(path: Path) -> PretrainedConfig:
    """The transformers configuration that the metadata describes.

    Raises:
        SourceError: unknown architecture, or a key that its configuration needs is missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    header = read_header(path)
    if header.architecture not in ARCHITECTURES:
        raise SourceError(
            "This GGUF architecture cannot be compiled.",
            where=str(path),
            found=header.architecture or "none",
            available=sorted(ARCHITECTURES),
            hint="Give the Hugging Face folder of the model instead.",
        )
    values = _config_values(header)
    config = AutoConfig.for_model(
        MODEL_TYPES.get(header.architecture, header.architecture), **values
    )
    config.architectures = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
    return config


def _config_values(header: GGUFHeader) -> dict[str, Any]:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    names = GGUF_CONFIG_MAPPING[header.architecture]
    values = {
        name: header.key(key)
        for key, name in names.items()
        if name is not None and header.key(key) is not None
    }
    for name, key in SPECIAL_IDS.items():
        values[name] = header.metadata.get(f"tokenizer.ggml.{key}")
    values.setdefault("vocab_size", _vocabulary(header))
    values["tie_word_embeddings"] = "output.weight" not in header.tensors
    return values


def _vocabulary(header: GGUFHeader) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise SourceError("The GGUF file has no token embedding.", where=str(header.path))
    return embedding.shape[0]


def tokenizer_of(path: Path, config: PretrainedConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the metadata; None if there is none. Raises SourceError."""
    raise NotImplementedError
