"""transformers' own table of what changed between a checkpoint and today's classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from .checkpoint import Checkpoint, MergedCheckpoint, SplitCheckpoint

__all__ = ["converted", "renaming"]


def renaming(network: nn.Module, own_name: Callable[[str], str] | None) -> Callable[[str], str]:
    """The current name of a stored tensor. Args: as ``converted``."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    known = get_model_conversion_mapping(network)
    renames = [entry for entry in known if isinstance(entry, WeightRenaming)]

    def rename(name: str) -> str:
        stored = name if own_name is None else own_name(name)
        return str(rename_source_key(stored, renames, [])[0])

    return rename


def converted(
    network: nn.Module, checkpoint: Checkpoint, own_name: Callable[[str], str] | None = None
) -> tuple[Checkpoint, Callable[[str], str]]:
    """The checkpoint with packed tensors in the parts that ``network`` has, experts in stacks and
    kernels of convolutions joined, and the current name of each of its tensors.

    Args:
        own_name: what ``network`` calls a tensor, where it is a part of what was stored.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    rename, known = renaming(network, own_name), get_model_conversion_mapping(network)
    converters = [entry for entry in known if isinstance(entry, WeightConverter)]
    splits = [entry for entry in converters if _splits(entry)]
    merges = [entry for entry in converters if _merges(entry)]
    joins = [entry for entry in converters if _joins(entry)]
    own = dict(network.named_parameters()) if splits else {}

    def parts(name: str) -> dict[str, int]:
        current = rename(name)
        for split in splits:
            first, matched = split.rename_source_key(current)
            if matched is not None:
                targets = split.target_patterns
                names = [first.replace(targets[0], target, 1) for target in targets]
                if _equal(split):
                    return dict.fromkeys(names, checkpoint.names()[name].shape[0] // len(names))
                return {each: len(own[each]) for each in names if each in own}
        return {}

    apart = SplitCheckpoint(checkpoint, parts) if splits else checkpoint
    stacks = {name: _by_matrix(parts) for name, parts in _collected(apart, merges, rename).items()}
    joined = {
        name: [part for (part,) in parts.values()]
        for name, parts in _collected(apart, joins, rename).items()
        if all(len(part) == 1 for part in parts.values())
    }
    whole = MergedCheckpoint(apart, stacks, joined) if stacks or joined else apart
    return whole, lambda name: name if name not in checkpoint.names() else rename(name)


def _splits(entry: Any) -> bool:
    """Whether it does nothing but cut one tensor into runs of rows."""
    from transformers.core_model_loading import Split

    (done, *more), targets = entry.operations, entry.target_patterns
    cuts = _equal(entry) or (isinstance(done, Split) and done.dim == 0)
    return cuts and not more and len(targets) > 1 and len(entry.source_patterns) == 1


def _equal(entry: Any) -> bool:
    """Whether the runs are equal; else each is as long as what it becomes."""
    from transformers.core_model_loading import Chunk

    done = entry.operations[0]
    return isinstance(done, Chunk) and done.dim == 0 and done.num_shards_attribute is None


def _merges(entry: Any) -> bool:
    """Whether it stacks tensors of the same name but for a number, several names one under the
    other."""
    from transformers.core_model_loading import Concatenate, MergeModulelist

    (first, *more), sources = entry.operations, entry.source_patterns
    if not isinstance(first, MergeModulelist) or first.dim != 0 or len(entry.target_patterns) != 1:
        return False
    if not more:
        return len(sources) == 1
    return len(more) == 1 and isinstance(more[0], Concatenate) and more[0].dim == 1


def _joins(entry: Any) -> bool:
    """Whether it puts tensors of several names one under the other."""
    from transformers.core_model_loading import Concatenate

    (first, *more), sources = entry.operations, entry.source_patterns
    joins = isinstance(first, Concatenate) and first.dim == 0 and not more
    return joins and len(sources) > 1 and len(entry.target_patterns) == 1


def _collected(
    checkpoint: Checkpoint, entries: Sequence[Any], rename: Callable[[str], str]
) -> dict[str, dict[str, list[str]]]:
    """Name of each tensor that is put together -> for each of its patterns those that match it."""
    found: dict[str, dict[str, list[str]]] = {}
    # As transformers collects them: expert 10 comes behind expert 9.
    for name in sorted(checkpoint.names(), key=_by_number) if entries else ():
        current = rename(name)
        for entry in entries:
            target, pattern = entry.rename_source_key(current)
            if pattern is not None:
                sources: dict[str, list[str]] = {each: [] for each in entry.source_patterns}
                found.setdefault(target, sources)[pattern].append(name)
                break
    return {target: names for target, names in found.items() if _even(names)}


def _by_number(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _even(names: Mapping[str, Sequence[str]]) -> bool:
    return len({len(each) for each in names.values()}) == 1


def _by_matrix(names: Mapping[str, Sequence[str]]) -> list[list[str]]:
    return [list(each) for each in zip(*names.values(), strict=True)]
