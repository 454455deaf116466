"""What torch does for others while it traces is left out; what the graph says is not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import config
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from lepton_compile.errors import ExportError
from lepton_compile.export.capture.probe import outside_trace
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


class _Layered(nn.Module):
    """Linear layers over texts, over their ends, and over numbers that are known already."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3, bias=False)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = self.first(inputs[0])
        return self.second(hidden), self.second(hidden[:, -1])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ops whose shapes are asked for."""
    names: list[str] = []
    dispatch = FakeTensorMode.dispatch

    def counted(self: FakeTensorMode, func: object, *rest: object, **named: object) -> object:
        names.append(str(func))
        return dispatch(self, func, *rest, **named)

    monkeypatch.setattr(FakeTensorMode, "dispatch", counted)
    return names


def test_shapes_of_linear_layers_need_no_product(asked: list[str]) -> None:
    module = _Layered()
    before = dict(torch.ops.aten.linear.default.py_kernels)
    given = [torch.empty(2, 4, 6, device="meta")]
    program = trace(module.to("meta"), given, [("batch", "sequence", None)])
    nodes = [node for node in program.graph.nodes if str(node.target) == "aten.linear.default"]
    (traced,) = [node for node in program.graph.nodes if node.name == "inputs_0"]
    batch, sequence, _ = traced.meta["val"].shape
    shapes = [tuple(node.meta["val"].shape) for node in nodes]
    assert [str(shape) for shape in shapes] == [
        str((batch, sequence, 5)),
        str((batch, sequence, 3)),
        str((batch, 3)),
    ]
    assert all(node.meta["val"].is_contiguous() for node in nodes)
    assert asked
    assert not {"aten.mm.default", "aten.addmm.default", "aten.view.default"} & set(asked)
    assert torch.ops.aten.linear.default.py_kernels == before


def test_a_linear_layer_that_does_not_fit_is_refused_in_the_words_of_torch() -> None:
    def code(x: Tensor) -> Tensor:
        return nn.functional.linear(x, torch.empty(5, 7, device="meta"))

    with pytest.raises(ExportError) as caught:
        trace(Coded(code), [torch.empty(2, 4, 6, device="meta")], [("batch", None, None)])
    assert "6" in str(caught.value.found)
    assert "7" in str(caught.value.found)


class _Normed(nn.Module):
    """Norms with and without weights, over the last axis and over two."""

    def __init__(self) -> None:
        super().__init__()
        norms = (nn.LayerNorm(6), nn.LayerNorm(6, bias=False), nn.LayerNorm(6, False))
        self.norms = nn.ModuleList([*norms, nn.LayerNorm((3, 6))])

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        return tuple(norm(x) for norm in (*self.norms[:3], self.norms[3]))


def test_shapes_of_norms_need_no_means(asked: list[str]) -> None:
    module = _Normed().to("meta")
    given = [torch.empty(2, 4, 3, 6, device="meta")]
    program = trace(module, given, [("batch", "sequence", None, None)])
    nodes = [node for node in program.graph.nodes if str(node.target) == "aten.layer_norm.default"]
    (traced,) = [node for node in program.graph.nodes if node.name == "inputs_0"]
    shapes = {str(tuple(node.meta["val"].shape)) for node in nodes}
    assert (len(nodes), shapes) == (4, {str(tuple(traced.meta["val"].shape))})
    assert all(node.meta["val"].is_contiguous() for node in nodes)
    assert "aten.native_layer_norm.default" not in asked
    assert not torch.ops.aten.layer_norm.default.py_kernels


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_shape_of_gelu_needs_no_curve(approximate: str, asked: list[str]) -> None:
    def code(x: Tensor) -> Tensor:
        turned = nn.functional.gelu(x.transpose(1, 2), approximate=approximate)
        return nn.functional.gelu(turned)

    given = [torch.empty(2, 4, 6, device="meta")]
    program = trace(Coded(code), given, [("batch", "sequence", None)])
    nodes = [node for node in program.graph.nodes if str(node.target) == "aten.gelu.default"]
    (turned,) = [n for n in program.graph.nodes if str(n.target) == "aten.transpose.int"]
    wanted = turned.meta["val"]
    for node in nodes:
        found = node.meta["val"]
        assert str(tuple(found.shape)) == str(tuple(wanted.shape))
        assert str(found.stride()) == str(wanted.stride())
    assert len(nodes) == 2
    assert "aten.gelu.default" in asked
    assert not [name for name in asked if "erf" in name or "tanh" in name]
    assert torch.ops.aten.gelu.default not in fake_impls.FAST_OP_IMPLEMENTATIONS


@pytest.mark.parametrize(
    ("shape", "weight"),
    [((7,), None), ((6,), torch.empty(7)), ((6,), torch.empty(6, dtype=torch.float16))],
    ids=["other sizes", "other weights", "another type"],
)
def test_a_norm_that_does_not_fit_is_as_torch_has_it(
    shape: tuple[int, ...], weight: Tensor | None, asked: list[str]
) -> None:
    def code(x: Tensor) -> Tensor:
        scale = None if weight is None else weight.to("meta")
        return nn.functional.layer_norm(x, shape, scale)

    with contextlib.suppress(ExportError):
        trace(Coded(code), [torch.empty(2, 4, 6, device="meta")], [("batch", None, None)])
    assert "aten.native_layer_norm.default" in asked


def test_what_is_computed_on_the_way_is_computed() -> None:
    weight, bias = torch.randn(3, 6), torch.randn(3)
    found, normed = list[Tensor](), list[Tensor]()

    def code(x: Tensor) -> Tensor:
        with outside_trace():
            found.append(nn.functional.linear(X, weight, bias))
            normed.append(nn.functional.layer_norm(X, (6,), weight[0]))
        return x * 2

    trace(Coded(code), [torch.empty(4, 6, device="meta")], [("batch", None)])
    assert len(found) >= 1
    for each in found:
        torch.testing.assert_close(each, X @ weight.T + bias)
    for each in normed:
        centered = X - X.mean(1, keepdim=True)
        deviation = (centered.square().mean(1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(each, centered / deviation * weight[0])


def test_a_graph_is_neither_described_nor_written_out_for_others() -> None:
    describe = proxy_tensor._extract_tensor_metadata
    program = trace(Coded(_off), [torch.empty(4, 6, device="meta")], [("batch", None)])
    described = [node.meta["tensor_meta"] for node in program.graph.nodes if node.meta]
    assert not [each for each in described if each.memory_format is not None]
    assert proxy_tensor._extract_tensor_metadata is describe
