"""Models that read one text and write another: an encoder, and a decoder that attends to it.

Both are traced as one graph. Its decoder is called as that of any text generation, and has a cache;
what the encoder reads stands beside it in inputs of their own. Which nodes need the source alone is
told from the finished graph, where an engine is written (``engines/encoder_part.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError

from .capture import LeptonCache, PairCache
from .tasks import CacheUse, TaskModule, keeping

__all__ = ["PAIR", "SOURCE_IDS", "SOURCE_MASK", "EncoderDecoderModule"]

PAIR = "text2text-generation"
SOURCE_IDS, SOURCE_MASK = "encoder_input_ids", "encoder_attention_mask"


class EncoderDecoderModule(TaskModule):
    """Text to text: logits of the answer's tokens, by the source and by those before them."""

    # FSMT does without where it is given a cache, and sees what is not written yet.
    looked_at = ("attention_mask",)

    def __init__(self, network: nn.Module, cache: CacheUse) -> None:
        super().__init__(network)
        self.cache = cache
        self.input_names = [
            *(SOURCE_IDS, SOURCE_MASK),
            *("input_ids", "attention_mask", "logits_to_keep"),
        ]
        source, own = ("batch", "source"), ("batch", "sequence")
        self.input_dims = [source, source, own, ("batch", "total_sequence"), ()]
        self.output_names = ["logits"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if self.cache == "none":
            raise ExportError("a model that writes an answer is compiled with a cache alone")
        source_ids, source_mask, ids, mask, keep = inputs
        own = LeptonCache(mask.shape[1], ids.shape[1], own=self.cache == "own")
        with keeping(self.network, keep):
            found = self.network(
                input_ids=source_ids,
                attention_mask=source_mask,
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                past_key_values=PairCache(own),
                use_cache=True,
            )
        return [found["logits"].to(torch.float32)]
