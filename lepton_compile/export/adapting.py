"""The weights of a model, with its adapter merged.

PEFT names what it trains by the modules of transformers' class. A checkpoint may have other names
for them: without the base model's prefix (GPT-2), those of older classes, one for weights that are
tied; and none for the head that an adapter for a task brings.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from .checkpoint import Checkpoint
from .checkpoint.adapted import AdaptedCheckpoint, Parameters, parted_by
from .conversion import converted, renaming
from .source import Source
from .ties import part, tied_of
from .weights import prefixed, stored_names

__all__ = ["part_unread", "weights_of"]


def weights_of(
    source: Source, network: Any, own_name: Callable[[str], str] | None = None
) -> tuple[Checkpoint, Callable[[str], str]]:
    """The checkpoint of a source with its adapter merged, in the parts that ``network`` has, and
    the current name of each of its tensors. Args: as ``converted``.

    Raises:
        CheckpointError: damaged, or an adapter of another model.
        SourceError: weights, or an adapter, of a kind that is not read.
    """
    stored = source.checkpoint()
    if source.adapter is not None:
        rename = renaming(network, own_name)
        stored = AdaptedCheckpoint(
            stored, source.adapter.path, _parameters(network, stored, rename)
        )
    return converted(network, stored, own_name)


def part_unread(source: Source, network: Any, own_name: Callable[[str], str] | None) -> list[str]:
    """Untie parameters of ``network`` of which the adapter changes one of two; returns their names.
    No number is read, as ``untie`` does: a weight that the adapter brings counts as changed."""
    if source.adapter is None or not (tied := tied_of(network)):
        return []
    named = _naming(network, _shapes(network), renaming(network, own_name))
    changed = {named(name) for name in parted_by(source.adapter.path)}
    found = [name for name, other in tied.items() if changed & {name, other}]
    for name in found:
        part(network, name)
    return found


def _shapes(network: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def _naming(
    network: Any, shapes: Container[str], rename: Callable[[str], str]
) -> Callable[[str], str | None]:
    """From a name in the adapter to the parameter's own; None where there is none."""
    prefix = getattr(network, "base_model_prefix", "")

    def named(name: str) -> str | None:
        candidates = prefixed(rename(name), prefix)
        return next((each for each in candidates if each in shapes), None)

    return named


def _parameters(network: Any, checkpoint: Checkpoint, rename: Callable[[str], str]) -> Parameters:
    from transformers.pytorch_utils import Conv1D

    shapes = _shapes(network)
    named = _naming(network, shapes, rename)
    stored = stored_names(shapes, checkpoint, network, rename)
    layers = (path for path, module in network.named_modules() if isinstance(module, Conv1D))
    turned = frozenset(f"{path}.weight" for path in layers)
    return Parameters(shapes, stored, tied_of(network), turned, named)
