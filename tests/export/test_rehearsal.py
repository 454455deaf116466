"""What a layer does shows without a trace: its ops, in order, with what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from lepton_compile.export import stamp
from lepton_compile.export.rehearsal import Script, examples, without_trace
from lepton_compile.export.trace import trace

from .harness import compiled, save
from .zoo import DECODERS


class Layer(nn.Module):
    """A layer that may look at its own index, or hold numbers of its own."""

    def __init__(self, index: int = 0, factor: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, device="meta")
        self.index, self.factor = index, torch.tensor(factor)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x) * self.factor


class Scaled(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (self.index + 1)


class Crossed(Layer):
    """The last layer adds what the others multiply by."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return x + y if self.index else y + x


def script(layer: nn.Module) -> list[object]:
    given = [torch.empty(2, 4, device="meta")]
    made = Script(layer, given)
    with without_trace(), made:
        layer(*given)
    assert made.lines
    return made.lines


def opened(*sizes: int) -> Tensor:
    """A tensor whose first size is open."""
    kinds = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (len(sizes) - 1)]
    mode = FakeTensorMode(shape_env=ShapeEnv())
    return mode.from_tensor(
        torch.empty(sizes, device="meta"),
        symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds),
    )


def test_layers_that_do_the_same_have_one_script() -> None:
    assert script(Layer(0)) == script(Layer(7))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Scaled(0), Scaled(7)),
        (Layer(factor=1.0), Layer(factor=2.0)),
        (Crossed(0), Crossed(7)),
    ],
    ids=["index", "number", "operands"],
)
def test_a_difference_shows(first: nn.Module, second: nn.Module) -> None:
    assert script(first) != script(second)


def test_open_sizes_get_their_examples() -> None:
    made = examples([opened(5, 32), torch.empty(7, device="meta")])
    assert made is not None
    assert [tuple(tensor.shape) for tensor in made] == [(5, 32), (7,)]
    assert all(tensor.device.type == "meta" for tensor in made)


def test_no_open_size_looks_like_a_fixed_one() -> None:
    made = examples([opened(5, 32), opened(11, 6), torch.empty(5, device="meta")])
    assert made is not None
    assert [tuple(tensor.shape) for tensor in made] == [(7, 32), (13, 6), (5,)]


def test_sums_of_open_sizes_stay_sums() -> None:
    one = opened(5, 32)
    both = torch.cat([one, one])
    assert [len(tensor) for tensor in examples([one, both]) or ()] == [5, 10]
    assert examples([one, both, torch.empty(5, device="meta")]) is None


def test_a_layer_with_a_size_of_the_example_is_traced_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A quarter of each head of 8 is turned: 2, as many as the example has texts."""
    traced: list[nn.Module] = []

    def noted(module: nn.Module, *args: Any) -> ExportedProgram:
        traced.append(module)
        return trace(module, *args)

    monkeypatch.setattr(stamp, "trace", noted)
    save(DECODERS["gpt-neox"][0], "text-generation", tmp_path)
    compiled(tmp_path, "text-generation")
    assert len(traced) == 1
