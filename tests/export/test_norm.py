"""Norms that are written out, told from their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lepton_compile.export.capture.norm import capture_norms

EPSILON = 1e-5


class Written(nn.Module):
    """A norm with its arithmetic in the open, as models have them."""

    def __init__(self, *, offset: float, centered: bool, power: float = 2.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16))
        self.eps, self.offset, self.centered, self.power = EPSILON, offset, centered, power

    def forward(self, x: Tensor) -> Tensor:
        if self.centered:
            x = x - x.mean(-1, keepdim=True)
        size = x.abs().pow(self.power).mean(-1, keepdim=True)
        return x * torch.rsqrt(size + self.eps) * (self.offset + self.weight)


def _ops(module: nn.Module) -> set[str]:
    with capture_norms(module) as count:
        program = torch.export.export(module, (torch.randn(2, 3, 16),))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return {f"{count} captured", *names}


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norms(offset: float) -> None:
    found = _ops(Written(offset=offset, centered=False))
    assert found == {"1 captured", "lepton.rms_norm.default"}


class Plain(nn.Module):
    """A norm without a parameter."""

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.eps, self.power = EPSILON, power

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.pow(x.abs().pow(self.power).mean(-1, keepdim=True) + self.eps, -0.5)


def test_rms_norms_without_a_parameter() -> None:
    found = _ops(Plain())
    assert found == {"1 captured", "aten.new_ones.default", "lepton.rms_norm.default"}
    assert "0 captured" in _ops(Plain(power=3.0))
    norm, x = Plain(), torch.randn(2, 3, 16)
    wanted = norm(x)
    with capture_norms(norm):
        assert torch.allclose(norm(x), wanted, atol=1e-5)


def test_layer_norms_without_a_bias() -> None:
    """Cohere's, which stayed seven nodes."""
    assert _ops(Written(offset=0.0, centered=True)) == {"1 captured", "aten.layer_norm.default"}


@pytest.mark.parametrize(
    "norm",
    [
        Written(offset=2.0, centered=False),
        Written(offset=1.0, centered=True),
        Written(offset=0.0, centered=False, power=3.0),
    ],
)
def test_others_stay_as_they_are(norm: Written) -> None:
    assert "0 captured" in _ops(norm)


def test_the_numbers_are_those_of_the_module() -> None:
    norm, x = Written(offset=0.0, centered=True), torch.randn(2, 3, 16)
    wanted = norm(x)
    with capture_norms(norm):
        assert torch.allclose(norm(x), wanted, atol=1e-5)
