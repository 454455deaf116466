"""Which keys a query sees: the rule of a mask, told by what its function says of two positions.

Attention in chunks (Llama 4) sees what is causal and in the query's own chunk. Chunks begin with a
row's first token, wherever padding ends; within one, which is all that an engine for shorter
sequences sees, it is causal attention like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils

from lepton_compile.errors import ExportError
from lepton_compile.export.swapped import swapped

from .probe import outside_trace

__all__ = ["MaskRule", "chunks_of_rows", "settle"]

_PROBE = 1 << 17  # wider than any sliding window in use
_PAIRS, _ROWS = 512, 64  # that are tried, of those that are too many


@dataclass(frozen=True)
class MaskRule:
    """Which keys a query sees, padding aside: ``window`` is -1 where unlimited; ``padded`` says
    whether the mask has padding at all."""

    causal: bool
    window: int
    padded: bool = True

    @property
    def free(self) -> bool:
        """Whether every query sees every key."""
        return not self.causal and self.window < 0


def chunks_of_rows() -> AbstractContextManager[None]:
    """Have chunks begin at position 0, which a rule of two positions can say.

    They begin with a row's first token, so that a row with padding before it has another rule; the
    difference is none as long as a row has one chunk, and rules with more are refused.
    """

    def unpadded(chunk_size: int, left_padding: Tensor) -> Callable[..., Any]:
        return lambda batch, head, query, key: query // chunk_size == key // chunk_size

    return swapped((masking_utils, "chunked_overlay", unpadded))


def settle(mask_function: Callable[..., Any], positions: int) -> MaskRule:
    """Evaluate a mask rule on real indices and name it.

    Args:
        positions: how many an engine will see: what the rule says beyond them is nobody's concern.

    Raises:
        ExportError: it is none that is known, or takes more than two positions.
    """
    with outside_trace():
        zero = torch.zeros((), dtype=torch.long)

        def seen(query: Tensor, key: Tensor) -> Tensor:
            found = torch.as_tensor(mask_function(zero, zero, query, key))
            return found.expand((query + key).shape)

        try:
            rule = _everywhere(seen, max(_PROBE, positions))
        except Exception as error:
            raise ExportError(
                "the model builds its attention mask from more than two positions",
                found=f"{type(error).__name__}: {error}",
            ) from error
        if rule is None and _plain_within(seen, positions):
            return MaskRule(causal=True, window=-1)
        if rule is None:
            raise _unknown(seen, positions)
    return rule


Seen = Callable[[Tensor, Tensor], Tensor]


def _everywhere(seen: Seen, middle: int) -> MaskRule | None:
    """The rule that holds at any position, from what is seen at one."""
    row = seen(torch.tensor(middle), torch.arange(0, 2 * middle))
    causal = not bool(row[middle + 1 :].any())
    reach = int(row[: middle + 1].sum())
    rule = MaskRule(causal, -1 if reach == middle + 1 else reach)
    query = torch.randint(0, middle, (_PAIRS,))
    span = max(8, 2 * rule.window)
    near = query + torch.randint(-span, span, (_PAIRS,))
    first = torch.arange(_ROWS)  # where a prefix would be that everyone sees
    tried = ((query, near), (first[:, None], first))
    return rule if all(torch.equal(seen(*each), _visible(rule, *each)) for each in tried) else None


def _visible(rule: MaskRule, query: Tensor, key: Tensor) -> Tensor:
    visible = key <= query if rule.causal else torch.ones_like(key + query, dtype=torch.bool)
    if rule.window >= 0:
        distance = query - key if rule.causal else (query - key).abs()
        visible = visible & (distance < rule.window)
    return visible


def _plain_within(seen: Seen, positions: int) -> bool:
    """Whether the rule is causal, without a limit, for the first ``positions``."""
    keys = torch.arange(positions)
    rows = [keys[0], keys[-1], *torch.randint(0, positions, (_ROWS,))]
    return all(torch.equal(seen(query, keys), keys <= query) for query in rows)


def _unknown(seen: Seen, positions: int) -> ExportError:
    """The error for a rule that has no name, with the shapes for which it would have one."""
    message = "the model's attention mask is neither causal, bidirectional nor a sliding window"
    low, high = 1, positions
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _plain_within(seen, middle) else (low, middle)
    if low < 2:
        return ExportError(message)
    return ExportError(
        f"{message}: it is causal within {low} positions, as attention in chunks is",
        found=f"sequences of up to {positions}",
        hint=f"build it for shapes.sequence: 1..{low}",
    )
