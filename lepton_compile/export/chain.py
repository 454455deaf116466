"""Runs of layers, each one op of the outer trace.

Layers built on transformers' ``GradientCheckpointingLayer`` are not traced with the outer model: a
call of one is noted, and what it returns stands for its outputs. Only when something other than a
layer reads such an output do the calls so far become one opaque op. A model whose layers follow
each other has one such op, however many layers there are.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.utils import _pytree as pytree
from transformers.modeling_layers import GradientCheckpointingLayer

from lepton_compile.errors import ExportError

from . import ops
from .capture import Capture
from .capture.sharing import is_shared_dict
from .layers import Given, LayerCall, Shared, Slot
from .meta import modules_of
from .refusal import OwnCodeError, untraceable
from .rehearsal import examples, without_trace

__all__ = ["NO_LAYERS", "Chain", "LayerTrace", "Place", "layers_of", "stamping"]

NO_LAYERS = "the model has no layers that transformers marks as such"


class Place(NamedTuple):
    """Where a tensor of a chain comes from: an output of one of its calls, or, where ``call`` is
    None, one of the chain's inputs. Behind what a layer returns are the keys and values of its
    cache."""

    call: int | None
    number: int


class Chain:
    """Calls of layers between which the model does nothing with what they return.

    Attributes:
        calls: in order; ``sources`` says of each input of each call where it comes from.
        inputs: the tensors from outside.
        outputs: what is read outside, and ``likes`` the input of each one's shape; known once the
            chain is closed.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls: list[LayerCall] = []
        self.sources: list[list[Place]] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Place] = []
        self.likes: list[int] = []
        self.closed = False
        self._known: dict[int, int] = {}
        self._versions: list[int] = []
        self._made: list[weakref.ref[_Output]] = []

    def add(self, call: LayerCall, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Note a call; returns what stands for its outputs."""
        self.calls.append(call)
        self.sources.append([self._place(tensor) for tensor in tensors])
        likes = [_known(tensors[like]) for like in call.like if like is not None]
        made = [
            _output(self, Place(len(self.calls) - 1, index), like)
            for index, like in enumerate(likes)
        ]
        self._made += [weakref.ref(output) for output in made]
        return list(made)

    def shared(self, call: LayerCall, pair: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What stands for all keys and values of the cache of the last call, for later layers.

        Args:
            pair: tensors of their shape.
        """
        first = sum(like is not None for like in call.like)
        last = len(self.calls) - 1
        return tuple(_output(self, Place(last, first + i), like) for i, like in enumerate(pair))

    def _place(self, tensor: Tensor) -> Place:
        if isinstance(tensor, _Output) and tensor.chain is self:
            return tensor.place
        tensor = _real(tensor)
        if id(tensor) not in self._known:
            self._known[id(tensor)] = len(self.inputs)
            self.inputs.append(tensor)
            self._versions.append(tensor._version)
        return Place(None, self._known[id(tensor)])

    def close(self) -> None:
        """Record the op that stands for all calls; outputs that nobody holds are left out."""
        self.closed = True
        if any(t._version != v for t, v in zip(self.inputs, self._versions, strict=True)):
            raise ExportError("the model changes in place what its layers read")
        alive = [output for made in self._made if (output := made()) is not None]
        self.outputs = [output.place for output in alive]
        self.likes = [self._known[id(output.like)] for output in alive]
        found = torch.ops.lepton.layers(self.inputs, self.number)
        for output, real in zip(alive, found, strict=True):
            output.actual = real

    def shapes(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Shape rule of the op."""
        return [torch.empty_like(inputs[like]) for like in self.likes]


class _Output(Tensor):
    """Stands for what a layer returns until something other than a layer reads it.

    Attributes:
        like: a tensor of the trace that has its shape and type.
        actual: the tensor itself, once the chain is closed.
    """

    chain: Chain
    place: Place
    like: Tensor
    actual: Tensor | None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inner = _known if func in _ABOUT else _real
        args, kwargs = pytree.tree_map_only(_Output, inner, (args, kwargs or {}))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise ExportError("the output of a layer is read where it cannot be seen", found=str(func))


# What may be asked of an output without reading it.
_ABOUT = (
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.size,
    Tensor.dim,
)


def _output(chain: Chain, place: Place, like: Tensor) -> _Output:
    output: _Output = Tensor._make_subclass(_Output, _NOTHING)
    output.chain, output.place, output.like, output.actual = chain, place, like, None
    return output


_NOTHING = torch.empty(0, device="meta")


def _known(tensor: Tensor) -> Tensor:
    """The tensor, or one of the trace that looks like it."""
    if not isinstance(tensor, _Output):
        return tensor
    return tensor.like if tensor.actual is None else tensor.actual


def _real(tensor: Tensor) -> Tensor:
    """The tensor, or the one of the trace that an output stands for."""
    if not isinstance(tensor, _Output):
        return tensor
    if not tensor.chain.closed:
        tensor.chain.close()
    if tensor.actual is None:
        raise ExportError("keys and values that layers share are read outside of layers")
    return tensor.actual


class LayerTrace:
    """Collects the layer calls of one outer trace."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.chains: list[Chain] = []
        self._seen: dict[tuple[Any, ...], LayerCall] = {}

    def outer(self, forward: Any) -> Any:
        """``forward`` of the outer model: what it returns are tensors of the trace."""

        @functools.wraps(forward)
        def traced(*args: Any) -> Any:
            self.chains.append(Chain(len(self.chains)))
            return pytree.tree_map_only(_Output, _real, forward(*args))

        return traced

    def stub(self, layer: nn.Module, path: str) -> Any:
        """``forward`` in place of a layer's own."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            call, tensors = self._noted(layer, path, args, kwargs)
            first = self._seen.setdefault(call.kind, call)
            if first.out_spec is None:
                self._settle(first, [_known(tensor) for tensor in tensors])
            call.out_spec, call.like, call.shares = first.out_spec, first.like, first.shares
            if self.chains[-1].closed:
                self.chains.append(Chain(len(self.chains)))
            made = self.chains[-1].add(call, tensors)
            self._hand_on(call, tensors, (args, kwargs))
            return call.results(made)

        return forward

    def _hand_on(self, call: LayerCall, tensors: Sequence[Tensor], given: Any) -> None:
        """Put what a call shares into the dictionary that later layers are given."""
        if not call.shares:
            return
        shared = next(leaf for leaf in pytree.tree_leaves(given) if is_shared_dict(leaf))
        masks = [t for t, rule in zip(tensors, call.rules, strict=True) if rule is not None]
        if not masks:
            raise ExportError("a layer shares its cache and has no mask", where=call.path)
        batch, total = masks[0].shape[0], masks[0].shape[-1]
        for name, sizes in call.shares:
            with disable_proxy_modes_tracing():  # nothing in the trace reads them
                pair = [torch.empty((batch, n, total, w), device="meta") for n, w in sizes]
            shared[name] = self.chains[-1].shared(call, pair)

    def _noted(
        self, layer: nn.Module, path: str, args: Any, kwargs: Any
    ) -> tuple[LayerCall, list[Tensor]]:
        flat, spec = pytree.tree_flatten((args, kwargs))
        tensors: list[Tensor] = []
        leaves: list[Any] = []
        for leaf in flat:
            if isinstance(leaf, torch.SymInt):
                raise ExportError("a layer takes a dynamic size as an argument", where=path)
            if isinstance(leaf, Tensor):
                leaves.append(Slot(len(tensors)))
                tensors.append(leaf)
            elif is_shared_dict(leaf):
                leaves.append(_noted_pairs(leaf, tensors))
            else:
                leaves.append(leaf)
        rules = [self.capture.attention.rule_of(tensor) for tensor in tensors]
        with torch._C.DisableTorchFunction():  # shapes are asked for by the hundred
            given = [Given(tuple(known.shape), known.dtype) for known in map(_known, tensors)]
            return LayerCall(layer, path, leaves, spec, given, rules), tensors

    def _settle(self, call: LayerCall, inputs: Sequence[Tensor]) -> None:
        """Which inputs the outputs are shaped like: in numbers, else in the sizes of the trace."""
        failed: type[Exception] | None = None
        with without_trace():
            given = examples(call.inputs)
            if given is not None:
                try:
                    self._run(call, given)
                    return
                except Exception as error:  # whatever it is, the trace comes upon it and says so
                    call.out_spec = None
                    failed = type(error)
        with disable_proxy_modes_tracing():
            try:
                self._run(call, inputs)
            except ExportError:
                raise
            except Exception as error:
                if type(error) is not failed:
                    raise
                raise untraceable(error, OwnCodeError) from error

    def _run(self, call: LayerCall, inputs: Sequence[Tensor]) -> None:
        out = call.run(inputs, self.capture)
        flat, call.out_spec = pytree.tree_flatten(out)
        call.like = [_like(inputs, each, call.path) for each in flat]


def _noted_pairs(shared: Any, tensors: list[Tensor]) -> Shared:
    """Keys and values that a layer is given, added to ``tensors``."""
    entries = []
    for name, pair in shared.items():
        entries.append((name, tuple(Slot(len(tensors) + i) for i in range(len(pair)))))
        tensors += pair
    return Shared(tuple(entries))


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
def stamping(outer: nn.Module, model: nn.Module, capture: Capture) -> Iterator[LayerTrace]:
    """Replace each checkpointing layer of ``model`` by a stub while the context is open.

    Args:
        outer: what is traced; ``model`` is in it.

    Raises:
        ExportError: the model has none.
    """
    trace = LayerTrace(capture)
    layers = layers_of(model)
    if not layers:
        raise ExportError(NO_LAYERS)
    homes = [(model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n, _ in layers]
    for (path, layer), (parent, name) in zip(layers, homes, strict=True):
        parent._modules[name] = _Stub(layer, trace.stub(layer, path))
    outer.forward = trace.outer(outer.forward)
    ops.layer_shapes.append(lambda inputs, number: trace.chains[number].shapes(inputs))
    try:
        yield trace
    finally:
        ops.layer_shapes.pop()
        del outer.forward
        for (_, layer), (parent, name) in zip(layers, homes, strict=True):
            parent._modules[name] = layer


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The outermost checkpointing layers, by their path: one inside another is part of it."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in modules_of(model):
        inside = found and path.startswith(f"{found[-1][0]}.")
        if isinstance(module, GradientCheckpointingLayer) and not inside:
            found.append((path, module))
    return found
