"""Models that read one text and write another: an encoder, and a decoder that attends to it.

Both are traced as one graph. Its decoder is called as that of any text generation, and has a cache;
what the encoder reads stands beside it in inputs of their own. Which nodes need the source alone is
told from the finished graph, where an engine is written (``engines/encoder_part.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .capture import LeptonCache, PairCache
from .tasks import CacheUse, TaskModule, keeping

__all__ = ["SOURCE_IDS", "SOURCE_MASK", "EncoderDecoderModule"]

SOURCE_IDS, SOURCE_MASK = "encoder_input_ids", "encoder_attention_mask"


class EncoderDecoderModule(TaskModule):
    """Text to text: logits of the answer's tokens, by the source and by those before them."""

    def __init__(self, network: nn.Module, cache: CacheUse) -> None:
        super().__init__(network)
        self.cache = cache
        total = "sequence" if cache == "none" else "total_sequence"
        self.input_names = [
            *(SOURCE_IDS, SOURCE_MASK),
            *("input_ids", "attention_mask", "logits_to_keep"),
        ]
        source, own = ("batch", "source"), ("batch", "sequence")
        self.input_dims = [source, source, own, ("batch", total), ()]
        self.output_names = ["logits"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        source_ids, source_mask, ids, mask, keep = inputs
        arguments: dict[str, Any] = {}
        if self.cache != "none":
            own = LeptonCache(mask.shape[1], ids.shape[1], own=self.cache == "own")
            arguments["past_key_values"] = PairCache(own)
        with keeping(self.network, keep):
            found = self.network(
                input_ids=source_ids,
                attention_mask=source_mask,
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                use_cache=self.cache != "none",
                **arguments,
            )
        return [found["logits"].to(torch.float32)]
