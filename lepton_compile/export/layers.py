"""Calls of layers, and which of them one traced layer can stand for.

Two layers are of a kind when their modules, scalar attributes and inputs agree; the first and the
last of a kind are run, op by op, and compared, so that a difference hidden in the code of the model
shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lepton_compile.errors import ExportError

from .capture import Capture, LeptonCache, PairCache
from .capture.attention import MaskRule
from .capture.sharing import is_shared_dict, shared_dict
from .rehearsal import Script, examples, without_trace

__all__ = ["Given", "LayerCall", "LayerModule", "Shared", "Sharing", "Slot", "alike", "kinds_of"]

_INDEX_NAMES = ("layer_idx", "layer_id", "layer_index")
_PLAIN = (bool, int, float, str)


class Given(NamedTuple):
    """What a layer is told of a tensor it is given; sizes may be open."""

    shape: tuple[int | torch.SymInt, ...]
    dtype: torch.dtype


class Slot(NamedTuple):
    """Stands for a tensor among the arguments of a call."""

    number: int


class Shared(NamedTuple):
    """Stands for keys and values that layers before have shared, by name, among the arguments."""

    entries: tuple[tuple[str, tuple[Slot, ...]], ...]


class Sharing(NamedTuple):
    """A name by which a layer shares its cache; heads and width of the keys, and of the values."""

    name: str
    sizes: tuple[tuple[int, int], ...]


@dataclass
class LayerCall:
    """One call of one layer: what went in and what came out.

    ``leaves`` are the flattened arguments; tensors are replaced by their position in ``inputs``.
    ``like`` has, for each output, the input of its shape; None where the output is None.
    ``shares`` says by which names later layers are given the keys and values of its cache.
    ``kind`` is equal for calls that one function can stand for.
    """

    module: nn.Module
    path: str
    leaves: list[Any]
    spec: pytree.TreeSpec
    inputs: list[Given]
    rules: list[MaskRule | None]
    out_spec: pytree.TreeSpec | None = None
    like: list[int | None] = field(default_factory=list)
    shares: tuple[Sharing, ...] = ()
    kind: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.kind = _kind_of(self)

    def results(self, tensors: Sequence[Tensor]) -> Any:
        """What the layer returns, from its tensors alone."""
        assert self.out_spec is not None
        given = iter(tensors)
        flat = [None if like is None else next(given) for like in self.like]
        return pytree.tree_unflatten(flat, self.out_spec)

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with other tensors in place of its own, and a fresh cache."""
        leaves: list[Any] = []
        for leaf in self.leaves:
            if isinstance(leaf, Slot):
                leaves.append(tensors[leaf.number])
            elif isinstance(leaf, LeptonCache):
                leaves.append(LeptonCache(*self._lengths(leaf, tensors)))
            elif isinstance(leaf, PairCache):
                own = self._lengths(leaf.self_attention_cache, tensors)
                leaves.append(PairCache(LeptonCache(*own)))
            elif isinstance(leaf, Shared):
                leaves.append(_given_again(leaf, tensors))
            else:
                leaves.append(leaf)
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def _lengths(self, cache: LeptonCache, tensors: Sequence[Tensor]) -> list[Any]:
        """Past and new tokens, and new ones, as sizes of ``tensors``; None where none has it."""
        sizes = {
            str(size): tensor.shape[axis]
            for given, tensor in zip(self.inputs, tensors, strict=True)
            for axis, size in enumerate(given.shape)
        }
        return [sizes.get(str(length)) for length in (cache.total, cache.new)]

    def run(self, inputs: Sequence[Tensor], capture: Capture) -> Any:
        """Call the layer's own code on ``inputs``, which stand for those of the call."""
        for tensor, rule in zip(inputs, self.rules, strict=True):
            if rule is not None:
                capture.attention.remember(tensor, rule)
        args, kwargs = self.arguments(inputs)
        shared = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if is_shared_dict(leaf)]
        before = {name: pair for each in shared for name, pair in each.items()}
        for key, value in before.values():
            capture.attention.share(key, value)
        capture.attention.fresh_keys.clear()  # of other layers, which may have been decoders'
        out = type(self.module).forward(self.module, *args, **kwargs)
        after = {name: pair for each in shared for name, pair in each.items()}
        self.shares = _shared(before, after, capture, self.path)
        return out


def _given_again(shared: Shared, tensors: Sequence[Tensor]) -> Any:
    return shared_dict(
        {name: tuple(tensors[slot.number] for slot in slots) for name, slots in shared.entries}
    )


def _shared(
    before: Mapping[str, Any], after: Mapping[str, Any], capture: Capture, path: str
) -> tuple[Sharing, ...]:
    """How a layer shares the keys and values of its cache."""
    own = capture.attention.fresh_keys
    found = []
    for name, pair in after.items():
        if before.get(name) is pair:
            continue
        key, value = pair
        if len(own) != 1 or own[0] is not key or not capture.attention.paired(key, value):
            raise ExportError("a layer shares what is not the whole of its one cache", where=path)
        sizes = tuple((int(each.shape[1]), int(each.shape[3])) for each in pair)
        found.append(Sharing(name, sizes))
    return tuple(found)


def _kind_of(call: LayerCall) -> tuple[Any, ...]:
    """What two calls must share to be of one kind."""
    caches = (LeptonCache, PairCache)
    leaves = tuple("cache" if isinstance(leaf, caches) else repr(leaf) for leaf in call.leaves)
    inputs = tuple((given.dtype, tuple(map(str, given.shape))) for given in call.inputs)
    return tuple(_parts(call.module)), leaves, str(call.spec), inputs, tuple(call.rules)


def _parts(layer: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Of each module of a layer: where it is, what it is, its plain attributes and weights."""
    waiting = [("", layer)]
    while waiting:  # named_modules would take longer than all the rest
        path, module = waiting.pop()
        state = module.__dict__
        plain = tuple(
            (name, repr(value))
            for name, value in state.items()
            if isinstance(value, _PLAIN) and name not in _INDEX_NAMES
        )
        weights = tuple(
            (name, tuple(weight.shape), weight.dtype)
            for name, weight in state["_parameters"].items()
            if weight is not None
        )
        yield path, type(module).__qualname__, plain, weights
        waiting += [(f"{path}.{name}", m) for name, m in state["_modules"].items() if m is not None]


def kinds_of(calls: Sequence[LayerCall]) -> list[list[int]]:
    """Indices of the calls of each kind, in the order of their first call."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(call.kind, []).append(index)
    return list(groups.values())


def alike(first: LayerCall, second: LayerCall, capture: Capture) -> bool:
    """Whether the code of two layers of one kind does the same; False where that does not show."""
    scripts = [_script(call, capture) for call in (first, second)]
    return scripts[0] is not None and scripts[0] == scripts[1]


def _script(call: LayerCall, capture: Capture) -> list[object] | None:
    given = examples(call.inputs)
    if given is None:
        return None
    script = Script(call.module, given)
    try:
        with without_trace(), script:
            call.run(given, capture)
    except Exception:  # a layer that does not run on numbers alone is traced
        return None
    return script.lines


class LayerModule(nn.Module):
    """A layer as a module of tensors alone, for tracing."""

    def __init__(self, call: LayerCall, capture: Capture) -> None:
        super().__init__()
        self.layer = call.module
        self._call, self._capture = call, capture

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        out = self._call.run(inputs, self._capture)
        return [leaf for leaf in pytree.tree_flatten(out)[0] if leaf is not None]
