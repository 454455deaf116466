"""Models of two small layers with random weights: one configuration for tests that need any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["bert", "byte_tokenizer", "llama", "made", "saved"]

SIZES = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def bert(**changes: Any) -> Any:
    """A configuration of BERT."""
    import transformers

    return transformers.BertConfig(**{**SIZES, **changes})


def llama(**changes: Any) -> Any:
    """A configuration of Llama with grouped heads, whose generations no token ends."""
    import transformers

    tokens = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    return transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 2, **tokens, **changes})


def made(kind: str, config: Any) -> Any:
    """The model class ``kind`` of transformers with this configuration: each time the same."""
    import torch
    import transformers

    torch.manual_seed(0)
    return getattr(transformers, kind)(config).eval()


def saved(kind: str, config: Any, folder: Path) -> Path:
    """The folder, with such a model in it."""
    made(kind, config).save_pretrained(folder)
    return folder


def byte_tokenizer(folder: Path) -> None:
    """A tokenizer for a vocabulary of 260: bytes have the numbers from 4 on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>")
    whole.save_pretrained(folder)
