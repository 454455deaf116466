"""Models that read or hear something and write: an encoder, and a decoder that attends to it.

Both are traced as one graph. Its decoder is called as that of any text generation, and has a cache;
what the encoder takes stands beside it in inputs of their own. Which nodes need the source alone is
told from the finished graph, where an engine is written (``engines/encoder_part.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError

from .capture import LeptonCache, PairCache
from .tasks import CacheUse, TaskModule, cache_name, keeping

__all__ = [
    "PAIRS",
    "READS",
    "SOUND",
    "SOURCE_IDS",
    "SOURCE_MASK",
    "SPEECH",
    "EncoderDecoderModule",
    "sound_shape",
]

READS, SPEECH = PAIRS = ("text2text-generation", "automatic-speech-recognition")
SOURCE_IDS, SOURCE_MASK = "encoder_input_ids", "encoder_attention_mask"
SOUND = "encoder_input_features"


class EncoderDecoderModule(TaskModule):
    """Logits of what is written, by the source and by the tokens before them.

    The source is a text, or for speech a window of sound: (batch, bands, frames).
    """

    # FSMT does without where it is given a cache, and sees what is not written yet.
    looked_at = ("attention_mask",)

    def __init__(self, network: nn.Module, cache: CacheUse, task: str) -> None:
        super().__init__(network)
        self.cache = cache
        text: tuple[str | int, ...] = ("batch", "source")
        source = {"input_ids": text, "attention_mask": text}
        if task == SPEECH:
            source = {"input_features": ("batch", *sound_shape(network.config))}
            self.input_dtypes = {SOUND: torch.float32}
        self.source = [*source]
        own = {"input_ids": "sequence", "attention_mask": "total_sequence"}
        self.input_names = [*(f"encoder_{name}" for name in source), *own, "logits_to_keep"]
        self.input_dims = [*source.values(), *(("batch", name) for name in own.values()), ()]
        self.output_names = ["logits"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if self.cache == "none":
            raise ExportError("an encoder-decoder model is compiled with a KV cache alone")
        *source, ids, mask, keep = inputs
        own = LeptonCache(mask.shape[1], ids.shape[1], own=self.cache == "own")
        with keeping(self.network, keep):
            found = self.network(
                **dict(zip(self.source, source, strict=True)),
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                use_cache=True,
                **{cache_name(self.network): PairCache(own)},
            )
        return [found["logits"].to(torch.float32)]


def sound_shape(config: Any) -> tuple[int, int]:
    """Bands and frames of a window of sound; two frames make a position.

    Raises:
        ExportError: the model hears in another form than Whisper does.
    """
    bands, positions = (
        getattr(config, name, None) for name in ("num_mel_bins", "max_source_positions")
    )
    if config.model_type != "whisper" or not bands or not positions:
        raise ExportError(
            "of speech recognition models Whisper alone is supported",
            where="model_type of its configuration",
            found=str(config.model_type),
            available=["whisper"],
        )
    return int(bands), 2 * int(positions)
