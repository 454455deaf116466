"""What a model writes into its own tensors, in a graph that has values alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lepton_compile.export.translate import UnknownOpError

from .harness import session_of_code

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def _divided(x: Tensor) -> Tensor:
    best = torch.topk(x, 2)[0]
    best /= best.sum(-1, keepdim=True)
    return best


def _scattered(x: Tensor) -> Tensor:
    mask = torch.zeros_like(x)
    mask.scatter_(1, torch.topk(x, 3, sorted=False)[1], 1)
    mask.scatter_(1, torch.topk(x, 1, largest=False)[1], x[:, :1])
    return mask.unsqueeze(-1).expand(-1, -1, 2).reshape(-1, 12)


def _viewed_before(x: Tensor) -> Tensor:
    y = x + 1
    seen = y.view(-1, 2, 3).sum(-1)
    y.mul_(2)
    return y[:, :2] + seen


def _smallest(x: Tensor) -> Tensor:
    return torch.topk(x, 2, dim=1, largest=False)[0]


def _shifted(x: Tensor) -> Tensor:
    """As tokens are before a decoder reads them; a size less one, which is not to be looked at."""
    y = x.new_zeros(x.shape)
    y[1:] = x[:-1].clone()
    y[0] = 7
    return y.masked_fill_(y == 7, 5)


def _parts(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 1:-2].mul_(2)
    y[-1, 2:4] = x[:1, 0]
    part = y[:2]
    part[:, -1] = x[:2, 0]
    part.add_(1)
    return y + part.sum()


def _all_that_is_left(x: Tensor) -> Tensor:
    turned = (x + 1).transpose(0, 1)
    turned += x[0, :, None]
    return turned.transpose(0, 1)


@pytest.mark.parametrize(
    "code", [_all_that_is_left, _divided, _scattered, _viewed_before, _smallest, _shifted, _parts]
)
def test_who_reads_it_later_reads_what_was_written(code: Callable[[Tensor], Tensor]) -> None:
    found = session_of_code(code).run(None, {"x": X})[0]
    np.testing.assert_allclose(found, code(torch.from_numpy(X.copy())).numpy(), rtol=1e-5)


def _through_a_view(x: Tensor) -> Tensor:
    y = x + 1
    y.view(-1)[1:].mul_(2)
    return y


def _view_read_afterwards(x: Tensor) -> Tensor:
    y = x + 1
    turned = y.transpose(0, 1)
    y.mul_(2)
    return turned.sum(0, keepdim=True)


def _of_its_input(x: Tensor) -> Tensor:
    return x.mul_(2)


@pytest.mark.parametrize("code", [_through_a_view, _view_read_afterwards, _of_its_input])
def test_two_names_of_one_place_are_refused(code: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnknownOpError, match="by two names"):
        session_of_code(code)
