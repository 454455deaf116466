"""What a decoder keeps from run to run, and what its inputs and outputs are called."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import onnx_ir as ir

from .translate import Translator

__all__ = ["CacheLayer", "Layers", "StateLayer", "name_kept", "presents_of"]


@dataclass(frozen=True)
class CacheLayer:
    """One cached attention: KV heads, head width and window (None where unlimited).

    ``number`` is the one in its names.
    """

    heads: int
    head_dim: int
    window: int | None
    number: int


@dataclass(frozen=True)
class StateLayer:
    """One state that a layer carries from run to run, by row: ``shape`` is (channels, kernel - 1)
    where ``kind`` is "conv", (heads, key width, value width) where it is "recurrent".

    ``number`` is the one in its names.
    """

    kind: str
    shape: tuple[int, ...]
    number: int


@dataclass
class Layers:
    """Which layer each cache and each state is of, as far as layers were traced one by one."""

    caches: list[int] = field(default_factory=list)
    states: list[int] = field(default_factory=list)


def name_kept(translator: Translator, layers: Layers) -> tuple[list[CacheLayer], list[StateLayer]]:
    """Give caches and states their outer names; returns their descriptions in order.

    Where a model has states, what a layer keeps has the layer's number: servers tell by it which
    layer keeps what. Else, and where layers are not known or keep two of
    a kind, caches and each kind of state are counted for themselves.
    """
    kinds = [state.kind for state in translator.states]
    if not kinds or not _tell_apart(translator, layers, kinds):
        layers = Layers([*range(len(translator.caches))], _counted(kinds))
    numbered = zip(layers.caches, translator.caches, translator.windows, strict=True)
    caches = [_name_cache(number, cache, window) for number, cache, window in numbered]
    states = []
    for number, (kind, past, present) in zip(layers.states, translator.states, strict=True):
        past.name, present.name = f"past_{kind}.{number}", f"present_{kind}.{number}"
        assert past.shape is not None
        shape = tuple(int(size) for size in past.shape[1:])  # type: ignore[arg-type]
        states.append(StateLayer(kind, shape, number))
    return caches, states


def _tell_apart(translator: Translator, layers: Layers, kinds: list[str]) -> bool:
    """Whether all is of a known layer, and no layer has two of a kind."""
    found = len(layers.caches), len(layers.states)
    unlike = len({*layers.caches}), len({*zip(kinds, layers.states, strict=False)})
    return found == unlike == (len(translator.caches), len(kinds))


def _counted(kinds: list[str]) -> list[int]:
    count: Counter[str] = Counter()
    numbers = []
    for kind in kinds:
        numbers.append(count[kind])
        count[kind] += 1
    return numbers


def _name_cache(
    number: int, cache: tuple[ir.Value, ir.Value, ir.Value, ir.Value], window: int | None
) -> CacheLayer:
    past_key, past_value, key, value = cache
    past_key.name, past_value.name = (f"past_key_values.{number}.{k}" for k in ("key", "value"))
    key.name, value.name = (f"present.{number}.{k}" for k in ("key", "value"))
    assert past_key.shape is not None
    heads, width = int(past_key.shape[1]), int(past_key.shape[3])  # type: ignore[arg-type]
    return CacheLayer(heads, width, window, number)


def presents_of(translator: Translator) -> list[ir.Value]:
    """What goes out of all that is kept, in the order in which it comes in."""
    caches = [value for cache in translator.caches for value in cache[2:]]
    return [*caches, *(state.present for state in translator.states)]
