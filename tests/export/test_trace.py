"""What torch does for others while it traces is left out; what the graph says is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import config
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from lepton_compile.export.trace import trace

from .harness import Coded

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def _switches() -> int | None:
    """How often the graph so far sets gradients, as seen by traced code; None outside a trace."""
    mode = get_proxy_mode()
    if mode is None:
        return None
    targets = [node.target for node in mode.tracer.graph.nodes]
    return targets.count(torch._C._set_grad_enabled)


def _off(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x * 2
    assert _switches() in (None, 0)
    return y + 1


def _on(x: Tensor) -> Tensor:
    with torch.enable_grad():
        assert torch.is_grad_enabled()
        y = x * 2
    assert _switches() in (None, 2)
    return y + 1


@pytest.mark.parametrize("code", [_off, _on])
def test_the_graph_is_not_cut_where_gradients_stay_as_they_are(
    code: Callable[[Tensor], Tensor],
) -> None:
    module = Coded(code)
    program = trace(module, [torch.empty(4, 6, device="meta")], [("batch", None)])
    assert "forward" not in vars(module)
    torch.testing.assert_close(program.module()((X,))[0], code(X))


def test_no_node_says_which_line_called_it() -> None:
    program = trace(Coded(_off), [torch.empty(4, 6, device="meta")], [("batch", None)])
    assert not [node for node in program.graph.nodes if node.stack_trace]
    assert not config.do_not_emit_stack_traces
