"""Trace each distinct layer once.

Layers built on transformers' ``GradientCheckpointingLayer`` are replaced by one opaque op while the
outer model is traced; each kind of layer is then traced alone. Two layers are of a kind when their
modules, scalar attributes and inputs agree; the first and the last of a kind are run, op by op,
and compared, so that a difference hidden in the code of the model shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers.modeling_layers import GradientCheckpointingLayer

from lepton_compile.errors import ExportError

from . import ops
from .capture import Capture, LeptonCache
from .capture.attention import MaskRule
from .rehearsal import Script, examples, without_trace

__all__ = ["LayerCall", "LayerModule", "LayerTrace", "alike", "kinds_of", "stamping"]

_INDEX_NAMES = ("layer_idx", "layer_id", "layer_index")


@dataclass
class LayerCall:
    """One call of one layer: what went in and what came out.

    ``leaves`` are the flattened arguments; tensors are replaced by their position in ``inputs``.
    ``like`` has, for each output, the input of its shape; None where the output is None.
    ``kind`` is equal for calls that one function can stand for.
    """

    module: nn.Module
    path: str
    leaves: list[Any]
    spec: pytree.TreeSpec
    inputs: list[Tensor]
    rules: list[MaskRule | None]
    out_spec: pytree.TreeSpec | None = None
    like: list[int | None] = field(default_factory=list)
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
            if isinstance(leaf, _Slot):
                leaves.append(tensors[leaf.index])
            elif isinstance(leaf, LeptonCache):
                leaves.append(LeptonCache(None))
            else:
                leaves.append(leaf)
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def run(self, inputs: Sequence[Tensor], capture: Capture) -> Any:
        """Call the layer's own code on ``inputs``, which stand for those of the call."""
        for tensor, rule in zip(inputs, self.rules, strict=True):
            if rule is not None:
                capture.attention.remember(tensor, rule)
        args, kwargs = self.arguments(inputs)
        return type(self.module).forward(self.module, *args, **kwargs)


@dataclass(frozen=True)
class _Slot:
    index: int


class LayerTrace:
    """Collects the layer calls of one outer trace."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.calls: list[LayerCall] = []
        self._seen: dict[tuple[Any, ...], LayerCall] = {}

    def stub(self, layer: nn.Module, path: str) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self._record(layer, path, args, kwargs)
            outputs = torch.ops.lepton.layer(call.inputs, len(self.calls) - 1)
            return call.results(list(outputs))

        return forward

    def shapes(self, inputs: Sequence[Tensor], index: int) -> list[Tensor]:
        """Shape rule of a layer: run the first of a kind, copy its pattern for the others."""
        call = self.calls[index]
        first = self._seen.setdefault(call.kind, call)
        if first.out_spec is None:
            self._settle(first, inputs)
        call.out_spec, call.like = first.out_spec, first.like
        return [torch.empty_like(inputs[i]) for i in call.like if i is not None]

    def _record(self, layer: nn.Module, path: str, args: Any, kwargs: Any) -> LayerCall:
        flat, spec = pytree.tree_flatten((args, kwargs))
        tensors: list[Tensor] = []
        leaves: list[Any] = []
        for leaf in flat:
            if isinstance(leaf, torch.SymInt):
                raise ExportError("a layer takes a dynamic size as an argument", where=path)
            if isinstance(leaf, Tensor):
                leaves.append(_Slot(len(tensors)))
                tensors.append(leaf)
            else:
                leaves.append(leaf)
        rules = [self.capture.attention.rule_of(t) for t in tensors]
        call = LayerCall(layer, path, leaves, spec, tensors, rules)
        self.calls.append(call)
        return call

    def _settle(self, call: LayerCall, inputs: Sequence[Tensor]) -> None:
        """Which inputs the outputs are shaped like: in numbers, else in the sizes of the trace."""
        given = examples(inputs)
        if given is not None:
            try:
                with without_trace():
                    self._run(call, given)
                return
            except Exception:  # whatever it is, the trace comes upon it and says so
                call.out_spec = None
        self._run(call, inputs)

    def _run(self, call: LayerCall, inputs: Sequence[Tensor]) -> None:
        out = call.run(inputs, self.capture)
        flat, call.out_spec = pytree.tree_flatten(out)
        call.like = [_like(inputs, each, call.path) for each in flat]


def _like(inputs: Sequence[Tensor], out: Any, path: str) -> int | None:
    """The input of an output's shape; None for an output that is None."""
    if out is None:
        return None
    for index, tensor in enumerate(inputs):
        if _alike(tensor, out):
            return index
    raise ExportError("a layer returns something of another shape than it takes", where=path)


def _alike(tensor: Tensor, out: Any) -> bool:
    return isinstance(out, Tensor) and tensor.dtype == out.dtype and tensor.shape == out.shape


class _Stub(nn.Module):
    """Stands where a layer stood while the outer model is traced.

    The layer is not registered in it, so that tracing costs nothing for the weights inside; what
    the model's code asks of the layer besides calling it is passed on.
    """

    def __init__(self, layer: nn.Module, forward: Any) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer
        self.forward = forward
        self.training = layer.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)


@contextmanager
def stamping(model: nn.Module, capture: Capture) -> Iterator[LayerTrace]:
    """Replace each checkpointing layer of ``model`` by the opaque op while the context is open."""
    trace = LayerTrace(capture)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, GradientCheckpointingLayer)]
    homes = [(model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n, _ in layers]
    for (path, layer), (parent, name) in zip(layers, homes, strict=True):
        parent._modules[name] = _Stub(layer, trace.stub(layer, path))
    ops.layer_shapes.append(trace.shapes)
    try:
        yield trace
    finally:
        ops.layer_shapes.pop()
        for (_, layer), (parent, name) in zip(layers, homes, strict=True):
            parent._modules[name] = layer


def _kind_of(call: LayerCall) -> tuple[Any, ...]:
    """What two calls must share to be of one kind."""
    modules = tuple(
        (name, type(module).__qualname__, _scalars(module))
        for name, module in call.module.named_modules()
    )
    weights = tuple((n, tuple(p.shape), p.dtype) for n, p in call.module.named_parameters())
    leaves = tuple("cache" if isinstance(leaf, LeptonCache) else repr(leaf) for leaf in call.leaves)
    inputs = tuple((str(t.dtype), str(tuple(t.shape))) for t in call.inputs)
    return modules, weights, leaves, str(call.spec), inputs, tuple(call.rules)


def _scalars(module: nn.Module) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, repr(value))
        for name, value in sorted(module.__dict__.items())
        if isinstance(value, bool | int | float | str) and name not in _INDEX_NAMES
    )


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
