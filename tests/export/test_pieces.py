"""An empty tensor that is filled piece by piece is put together; all else stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lepton_compile.export.trace import trace

from .harness import Coded

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def _in_order(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 10)
    y[:, :6].copy_(x)
    y[:, 6:].copy_(x[:, :4] * 2)
    return y + 1


def _backwards(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 10)
    y[..., 7:].copy_(x[..., :3])
    y[..., 2:7].copy_(x[..., 1:])
    y[..., :2].copy_(x[..., :2])
    return y * 2


def _ops(code: Callable[[Tensor], Tensor]) -> tuple[nn.Module, list[str]]:
    program = trace(Coded(code), [torch.empty(4, 6, device="meta")], [("batch", None)])
    names = [str(n.target).split(".")[1] for n in program.graph.nodes if n.op == "call_function"]
    return program.module(), [name for name in names if name in ("cat", "copy_", "new_empty")]


@pytest.mark.parametrize("code", [_in_order, _backwards])
def test_pieces_become_one_concatenation(code: Callable[[Tensor], Tensor]) -> None:
    module, ops = _ops(code)
    assert ops == ["cat"]
    torch.testing.assert_close(module((X,))[0], code(X))


def _with_a_gap(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 12)
    y[:, :6].copy_(x)
    y[:, 8:].copy_(x[:, :4])
    return y


def _twice(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 6)
    y[:, :6].copy_(x)
    y[:, :6].copy_(x * 2)
    return y


def _read_in_between(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 12)
    y[:, :6].copy_(x)
    first = y[:, :6] * 2
    y[:, 6:].copy_(first)
    return y


def _broadcast(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 12)
    y[:, :6].copy_(x[:, :1])
    y[:, 6:].copy_(x)
    return y


def _every_other(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], 12)
    y[:, ::2].copy_(x)
    y[:, 1::2].copy_(x)
    return y


@pytest.mark.parametrize("code", [_with_a_gap, _twice, _read_in_between, _broadcast, _every_other])
def test_what_does_not_fit_stays(code: Callable[[Tensor], Tensor]) -> None:
    _, ops = _ops(code)
    assert "cat" not in ops
    assert "copy_" in ops
