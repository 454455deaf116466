"""Tracing without what torch does for others and nothing here reads.

Most of the time of a small build is torch's trace. What is left out of it are private matters of
torch, and not every version has them: each is left alone where it is not as it is known here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import no_python_dispatcher
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import config as fx_config
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode

from lepton_compile.export.swapped import swapped

__all__ = ["lean"]

_LINEAR = torch.ops.aten.linear.default
_LAYER_NORM = torch.ops.aten.layer_norm.default
_GELU = torch.ops.aten.gelu.default
_WRITTEN_OUT = torch._C.DispatchKey.CompositeImplicitAutograd


@contextmanager
def lean(module: nn.Module) -> Iterator[None]:
    """Inside, ``module`` is traced for its graph alone."""
    with (
        _uncached(),
        _unplaced(),
        _undescribed(),
        _unwritten(),
        _whole(),
        _gelu_alike(),
        _in_one_piece(module),
    ):
        yield


def _uncached() -> AbstractContextManager[object]:
    """Compute each shape once, without looking for it among those of earlier ops.

    With open sizes a look costs as much as the shape itself, and what is found is computed again:
    a fifth of the time of a trace.
    """
    from torch._dynamo import config

    if not hasattr(config, "fake_tensor_cache_enabled"):
        return nullcontext()
    patch: AbstractContextManager[object] = config.patch(fake_tensor_cache_enabled=False)
    return patch


def _unplaced() -> AbstractContextManager[object]:
    """Do not note, op by op, the lines of code that called it: nothing here reads them."""
    return _set(fx_config, "do_not_emit_stack_traces", True)


def _undescribed() -> AbstractContextManager[object]:
    """Do not look, op by op, in which order its result lies in memory: a tenth of a trace."""
    name = "_extract_tensor_metadata"
    describe = getattr(proxy_tensor, name, None)
    if describe is None:
        return nullcontext()

    def briefly(result: Tensor, include_contiguity: bool = False) -> Any:
        return describe(result, include_contiguity=False)

    return _set(proxy_tensor, name, briefly)


def _unwritten() -> AbstractContextManager[object]:
    """Do not write graphs out as Python, which torch does each time that it has changed one."""
    from torch.fx import _lazy_graph_module as lazy

    if not hasattr(lazy, "_use_lazy_graph_module"):
        return nullcontext()
    return lazy._use_lazy_graph_module(True)


@contextmanager
def _whole() -> Iterator[None]:
    """The shape of what linear layers and norms give from those of their inputs: a quarter of a
    trace.

    torch would write each out, a linear layer as views, a product of matrices and views again, ask
    of all with open sizes whether they are contiguous, and keep nothing of it.
    """
    with ExitStack() as stack:
        for op, shape in ((_LINEAR, _linear), (_LAYER_NORM, _layer_norm)):
            stack.enter_context(_shaped(op, shape))
        yield


@contextmanager
def _shaped(op: Any, shape: Callable[..., Tensor]) -> Iterator[None]:
    """An op that torch writes out has a shape rule instead."""
    kernels = getattr(op, "py_kernels", None)
    cache = getattr(op, "_dispatch_cache", None)
    if kernels is None or cache is None or _WRITTEN_OUT in kernels:
        yield
        return
    kernels[_WRITTEN_OUT] = shape
    cache.clear()
    try:
        yield
    finally:
        del kernels[_WRITTEN_OUT]
        cache.clear()


@contextmanager
def _gelu_alike() -> Iterator[None]:
    """What Gelu gives is shaped like what it is given: torch would write it out to see that."""
    known = getattr(fake_impls, "FAST_OP_IMPLEMENTATIONS", None)
    if known is None or _GELU in known:
        yield
        return

    def alike(mode: FakeTensorMode, x: Tensor, *, approximate: str = "none") -> Tensor:
        with mode:
            return torch.empty_like(x)

    known[_GELU] = alike
    try:
        yield
    finally:
        del known[_GELU]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(x, FakeTensor) and _fit(x, weight, bias):
        return x.new_empty((*x.shape[:-1], weight.shape[0]))
    if isinstance(x, FakeTensor):  # torch's own words for what is wrong
        product = torch.matmul(x, weight.t())
        return product if bias is None else product + bias
    with no_python_dispatcher():  # numbers, which a model's code computes on the way
        return nn.functional.linear(x, weight, bias)


def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-5,
    fast: bool = True,
) -> Tensor:
    if isinstance(x, FakeTensor) and _normed(x, shape, weight, bias):
        return x.new_empty(x.shape)
    if isinstance(x, FakeTensor):
        return torch.native_layer_norm(x, shape, weight, bias, epsilon)[0]
    with no_python_dispatcher():
        return nn.functional.layer_norm(x, shape, weight, bias, epsilon)


def _normed(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether the last sizes are fixed, and those of the norm."""
    last = tuple(x.shape[-len(shape) :]) if len(shape) else ()
    if not last or not all(isinstance(size, int) for size in (*last, *shape)):
        return False
    given = [each for each in (weight, bias) if each is not None]
    fits = all(each.dtype == x.dtype and tuple(each.shape) == last for each in given)
    return fits and last == tuple(shape) and x.is_floating_point()


def _fit(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the sizes that say so are fixed, and fit."""
    if x.ndim < 1 or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        return False
    width, rows = x.shape[-1], weight.shape[0]
    sizes = [width, *weight.shape, *([] if bias is None else bias.shape)]
    if not all(isinstance(size, int) for size in sizes):
        return False
    if any(each.dtype != x.dtype for each in (weight, bias) if each is not None):
        return False
    return width == weight.shape[1] and (bias is None or bias.shape[0] == rows)


@contextmanager
def _set(place: Any, name: str, value: object) -> Iterator[None]:
    """An attribute has another value inside; one that is not there is not made."""
    if not hasattr(place, name):
        yield
        return
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def _in_one_piece(module: nn.Module) -> AbstractContextManager[None]:
    """Keep ``torch.no_grad()`` of the model's code out of the graph: gradients are off anyway.

    torch would cut the graph wherever it is entered and left, and put the pieces together again.
    """
    forward = module.forward

    @functools.wraps(forward)
    def traced(*args: Any) -> Any:
        with _Idle():
            return forward(*args)

    return swapped((module, "forward", traced))


class _Idle(TorchFunctionMode):
    """Leaves out what sets gradients to what they are set to."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled and args[0] == torch.is_grad_enabled():
            return None
        return func(*args, **(kwargs or {}))
