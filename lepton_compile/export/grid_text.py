"""Models that see pictures of any size and write.

As of other models that see, tower and decoder are one graph. Of Qwen-VL a picture stands among the
tokens with a row and a column of its own for each of its tokens, so that a position has three axes:
time, row, column. What a caller gives of it is how far each is from the token's place in the text,
which is nothing where no picture came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError

from .capture import LeptonCache
from .image_text import PICTURES, known_ids, marking, placeholder
from .image_text_kinds import GEMMA4
from .patch_grid import PatchGrid
from .swapped import swapped
from .tasks import CacheUse, TaskModule, cache_name, keeping
from .towers import tower_of

__all__ = ["OFFSETS", "PLACES", "GridTextModule"]

PLACES, OFFSETS = "encoder_positions", "position_offsets"
"""Rows and columns of patches, -1 of those beyond the picture; what is added to a token's place in
the text, by axis."""


class GridTextModule(TaskModule):
    """Logits of what is written, by one picture and by the tokens before them."""

    def __init__(self, network: nn.Module, cache: CacheUse, grid: PatchGrid) -> None:
        super().__init__(network)
        self.cache = cache
        config: Any = network.config
        self.tower, self.token = tower_of(config), placeholder(config)
        self.tower.attend(network)
        dims = grid.dims()
        named: dict[str, tuple[str | int, ...]] = {
            PICTURES: dims,
            PLACES: (*dims[:-1], 2),
            "input_ids": ("batch", "sequence"),
            "attention_mask": ("batch", "total_sequence"),
            "logits_to_keep": (),
        }
        if grid.axes > 1:
            named[OFFSETS] = (grid.axes, "batch", "sequence")
        self.input_names, self.input_dims = [*named], [*named.values()]
        self.input_dtypes = {PICTURES: torch.float32}
        self.output_names = ["logits"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if self.cache == "none":
            raise ExportError("a vision-language model is compiled with a KV cache alone")
        pixels, patches, ids, mask, keep, *offsets = inputs
        network: Any = self.network
        rows = self.tower.features(network, pixels, patches)
        words = known_ids(network, ids, self.token)
        embeddings, *above = self._placed(ids, words, rows)
        places = torch.ops.lepton.positions(mask, ids)
        given = {
            cache_name(network): LeptonCache(mask.shape[1], ids.shape[1], own=self.cache == "own"),
            **_layer_inputs(network, words),
        }
        with (
            keeping(network, keep),
            marking(network, mask, ids),
            _placing_nothing(network, ids),
            _adding(network.model.language_model.layers, above),
        ):
            found = network(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=places[None] + offsets[0] if offsets else places,
                use_cache=True,
                **given,
            )
        return [found["logits"].to(torch.float32)]

    def _placed(self, ids: Tensor, words: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """Embeddings of tokens (batch, sequence, width), those of the picture in their places; and
        what goes on top of some layers there, nothing of a word."""
        network: Any = self.network
        own = network.get_input_embeddings()(words)
        width = own.shape[-1]
        more = rows.shape[-1] - width
        wide = torch.cat([own, own.new_zeros((*ids.shape, more))], dim=-1) if more else own
        placed = torch.ops.lepton.placed(wide, ids, rows, self.token)
        return torch.split(placed, width, dim=-1)


def _layer_inputs(network: Any, words: Tensor) -> dict[str, Tensor]:
    """What Gemma 4 gives each layer of a token, besides: of a picture that of padding, as
    ``words`` have it."""
    config = network.config
    if config.model_type not in GEMMA4 or not config.text_config.hidden_size_per_layer_input:
        return {}
    return {"per_layer_inputs": network.model.language_model.get_per_layer_inputs(words, None)}


@contextmanager
def _placing_nothing(network: Any, ids: Tensor) -> Iterator[None]:
    """Have Gemma 4 look for no more places of pictures: it would among embeddings, and cannot where
    it has no tokens for what is heard."""
    if network.config.model_type not in GEMMA4:
        yield
        return
    none = ids < 0
    with swapped((network.model, "get_placeholder_mask", lambda *_: (none, none, none))):
        yield


@contextmanager
def _adding(layers: Sequence[nn.Module], above: Sequence[Tensor]) -> Iterator[None]:
    """Add features of pictures to what comes out of the first layers (DeepStack): Meng et al.,
    2024, https://arxiv.org/abs/2406.04334."""

    def hook(feature: Tensor) -> Any:
        return lambda _module, _given, out: out + feature

    hooks = [
        layer.register_forward_hook(hook(one)) for layer, one in zip(layers, above, strict=False)
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
