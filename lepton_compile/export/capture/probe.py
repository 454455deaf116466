"""Run real code on real numbers in the middle of a trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

__all__ = ["outside_trace", "real_copy"]


@contextmanager
def outside_trace() -> Iterator[None]:
    """Suspend tracing and fake tensors, with a fixed seed of its own.

    Gradients must be off already: switching them here would be recorded in the trace.
    """
    with ExitStack() as stack:
        stack.enter_context(disable_proxy_modes_tracing())
        stack.enter_context(unset_fake_temporarily())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.device("cpu"))
        torch.manual_seed(0)
        yield


def real_copy(module: nn.Module) -> nn.Module:
    """A copy of a small module on the CPU with random parameters; real buffers are kept."""
    twin = copy.deepcopy(module)
    for name, parameter in list(twin.named_parameters(recurse=False)):
        values = torch.randn(parameter.shape, device="cpu", dtype=torch.float32)
        setattr(twin, name, nn.Parameter(values, requires_grad=False))
    return twin.eval()
