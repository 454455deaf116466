"""The cache of a decoder that attends to another text, too.

Keys and values of the other text are made of it alone: whoever runs the encoder keeps them, and no
op of ours owns them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache

from .attention import LeptonCache, active

__all__ = ["CrossCache", "PairCache"]


class CrossCache(Cache):
    """Passes on keys and values of the other text."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if (capture := active()) is not None:
            capture.crossing.append(key_states)
        return key_states, value_states


class _NeverUpdated(dict[int, bool]):
    """Which layers have keys of the other text already: each is traced as it makes them."""

    def __setitem__(self, layer: int, updated: bool) -> None:
        pass


class PairCache(EncoderDecoderCache):
    """The cache of a decoder's own tokens, and one for those of the other text."""

    def __init__(self, own: LeptonCache) -> None:
        super().__init__(own, CrossCache())
        self.is_updated = _NeverUpdated()
