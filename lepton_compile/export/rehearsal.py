"""Run a layer on tensors without data, to see what it does before, or instead of, tracing it.

A trace reasons about every open size and takes half a second for one layer. Run with a number in
place of each size, the layer shows in a hundredth of that which ops it calls with which arguments,
and which of its inputs each output is shaped like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from . import ops

__all__ = ["Script", "Shaped", "examples", "without_trace"]


class Shaped(Protocol):
    """A tensor, or what is known of one."""

    @property
    def shape(self) -> Sequence[int | torch.SymInt]: ...

    @property
    def dtype(self) -> torch.dtype: ...


def examples(tensors: Sequence[Shaped]) -> list[Tensor] | None:
    """Meta tensors with a number in place of each open size: the example's, or the next above it,
    for all of them, where a fixed size is one of those and shapes would look equal that are not.

    None where there is no next: a sum or product of sizes would no longer be that of its parts.
    """
    sizes = [size for tensor in tensors for size in tensor.shape]
    opened = [size for size in sizes if isinstance(size, torch.SymInt)]
    fixed = {int(size) for size in sizes if not isinstance(size, torch.SymInt)}
    more = next(n for n in count() if fixed.isdisjoint(_hint(size) + n for size in opened))
    if more and not all(size.node.expr.is_symbol for size in opened):
        return None

    def number(size: int | torch.SymInt) -> int:
        return _hint(size) + more if isinstance(size, torch.SymInt) else int(size)

    return [
        torch.empty([number(size) for size in tensor.shape], dtype=tensor.dtype, device="meta")
        for tensor in tensors
    ]


def _hint(size: torch.SymInt) -> int:
    return int(size.node.hint)


@contextmanager
def without_trace() -> Iterator[None]:
    """Suspend the trace that is under way, and its fake tensors."""
    with ExitStack() as stack:
        stack.enter_context(disable_proxy_modes_tracing())
        stack.enter_context(unset_fake_temporarily())
        stack.enter_context(torch.no_grad())
        yield


class Script(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a layer does, op by op, in ``lines``; tensors are named by where they come from."""

    def __init__(self, layer: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lines: list[object] = []
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []  # an id is unique only while its object lives
        for index, tensor in enumerate(inputs):
            self._name(tensor, f"input {index}")
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            self._name(tensor, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.lepton.constant.default:  # its number says nothing, its values do
            args = (ops.constants[args[0]].tobytes(), *args[1:])
        given = [self._text(leaf) for leaf in pytree.tree_leaves((args, kwargs))]
        made = [self._text(leaf) for leaf in pytree.tree_leaves(out)]
        self.lines.append((str(func), tuple(given), tuple(made)))
        return out

    def _text(self, leaf: Any) -> object:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        if id(leaf) not in self._names:
            self._name(leaf, f"{len(self._names)} {_values(leaf)}")
        return self._names[id(leaf)], leaf.dtype, tuple(leaf.shape)

    def _name(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = name
        self._alive.append(tensor)


def _values(tensor: Tensor) -> str:
    """Of a tensor that has some: the model's code holds it in a place of its own."""
    return "" if tensor.device.type == "meta" else str(tensor.tolist())
