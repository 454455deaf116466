"""Tiny random configurations of models that read one text and write another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

from .zoo import LENGTH, VOCABULARY

__all__ = ["HALVES", "PAIRS"]

HALVES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
_BART = {
    **HALVES,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
# Of a model that stays plain each layer is traced: as few as say which half they are of.
_PLAIN_BART = {**_BART, "encoder_layers": 1, "decoder_layers": 2}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,  # as many as decode: transformers makes so many caches
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}


def _make(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**options)


# name -> (configuration, how it must be captured)
PAIRS: dict[str, tuple[Callable[[], Any], str]] = {
    "bart": (_make("BartConfig", **_BART), "stamped"),
    # Reads by code of its own, with the mask that attention is given where it writes.
    "bigbird-pegasus": (
        _make("BigBirdPegasusConfig", **_PLAIN_BART, attention_type="original_full"),
        "plain",
    ),
    "blenderbot": (_make("BlenderbotConfig", **_BART), "stamped"),
    "blenderbot-small": (_make("BlenderbotSmallConfig", **_BART), "stamped"),
    "m2m-100": (_make("M2M100Config", **_BART), "stamped"),
    # No file has its positions.
    "marian": (
        _make("MarianConfig", **{**_BART, "pad_token_id": 98, "decoder_start_token_id": 98}),
        "stamped",
    ),
    "mbart": (_make("MBartConfig", **_BART), "stamped"),
    "mt5": (_make("MT5Config", **_T5), "plain"),
    "mvp": (_make("MvpConfig", **_PLAIN_BART), "plain"),
    "pegasus": (_make("PegasusConfig", **_BART), "stamped"),
    "plbart": (_make("PLBartConfig", **_BART), "stamped"),
    "t5": (_make("T5Config", **_T5), "plain"),
    "t5-gated": (
        _make("T5Config", **_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        "plain",
    ),
    "umt5": (_make("UMT5Config", **_T5), "plain"),
}
