"""transformers' own table of what changed between a checkpoint and today's classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .checkpoint import Checkpoint, SplitCheckpoint

__all__ = ["converted"]


def converted(
    network: nn.Module, checkpoint: Checkpoint
) -> tuple[Checkpoint, Callable[[str], str]]:
    """The checkpoint with packed tensors in the parts that ``network`` has, and the current name of
    each of its tensors."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    known = get_model_conversion_mapping(network)
    renames = [entry for entry in known if isinstance(entry, WeightRenaming)]
    splits = [entry for entry in known if isinstance(entry, WeightConverter) and _splits(entry)]

    def rename(name: str) -> str:
        return str(rename_source_key(name, renames, [])[0])

    def parts(name: str) -> list[str]:
        current = rename(name)
        for split in splits:
            first, matched = split.rename_source_key(current)
            if matched is not None:
                targets = split.target_patterns
                return [first.replace(targets[0], target, 1) for target in targets]
        return []

    apart = SplitCheckpoint(checkpoint, parts) if splits else checkpoint
    return apart, lambda name: name if name not in checkpoint.names() else rename(name)


def _splits(entry: Any) -> bool:
    """Whether it does nothing but cut one tensor into equal runs of rows."""
    from transformers.core_model_loading import Chunk

    (done, *more), targets = entry.operations, entry.target_patterns
    cuts = isinstance(done, Chunk) and done.dim == 0 and done.num_shards_attribute is None
    return cuts and not more and len(targets) > 1 and len(entry.source_patterns) == 1
