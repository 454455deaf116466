"""Models that see pictures of any size and write (Qwen-VL).

As of other models that see, tower and decoder are one graph. A picture stands among the tokens with
a row and a column of its own for each of its tokens, so that a position has three axes: time, row,
column. What a caller gives of it is how far each is from the token's place in the text, which is
nothing where no picture came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError

from .capture import LeptonCache
from .capture.tables import AXES
from .image_text import PICTURES, known_ids, placeholder
from .patch_grid import PatchGrid
from .patch_tower import attend_by_patches, patch_features
from .tasks import CacheUse, TaskModule, cache_name, keeping

__all__ = ["OFFSETS", "PLACES", "GridTextModule"]

PLACES, OFFSETS = "encoder_positions", "position_offsets"
"""Rows and columns of patches, -1 of those beyond the picture; what is added to a token's place in
the text, by axis."""


class GridTextModule(TaskModule):
    """Logits of what is written, by one picture and by the tokens before them."""

    def __init__(self, network: nn.Module, cache: CacheUse, grid: PatchGrid) -> None:
        super().__init__(network)
        self.cache = cache
        made: Any = network
        attend_by_patches(made.model.visual)
        dims = grid.dims()
        named: dict[str, tuple[str | int, ...]] = {
            PICTURES: dims,
            PLACES: (*dims[:-1], 2),
            "input_ids": ("batch", "sequence"),
            "attention_mask": ("batch", "total_sequence"),
            "logits_to_keep": (),
            OFFSETS: (AXES, "batch", "sequence"),
        }
        self.input_names, self.input_dims = [*named], [*named.values()]
        self.input_dtypes = {PICTURES: torch.float32}
        self.output_names = ["logits"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if self.cache == "none":
            raise ExportError("a model that sees and writes is compiled with a KV cache alone")
        pixels, patches, ids, mask, keep, offsets = inputs
        network: Any = self.network
        token = placeholder(network.config)
        rows = patch_features(network.model.visual, pixels, patches)
        own = network.get_input_embeddings()(known_ids(network, ids, token))
        width = own.shape[-1]
        more = rows.shape[-1] - width  # what goes on top behind the first layers: nothing of a word
        wide = torch.cat([own, own.new_zeros((*ids.shape, more))], dim=-1) if more else own
        placed = torch.ops.lepton.placed(wide, ids, rows, token)
        embeddings, *above = placed.split(width, dim=-1)
        given = {
            cache_name(network): LeptonCache(mask.shape[1], ids.shape[1], own=self.cache == "own")
        }
        with keeping(network, keep), _adding(network.model.language_model.layers, above):
            found = network(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=torch.ops.lepton.positions(mask, ids)[None] + offsets,
                use_cache=True,
                **given,
            )
        return [found["logits"].to(torch.float32)]


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
