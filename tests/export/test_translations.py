"""Ops of torch that no small model of the zoo has, translated: the numbers are torch's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lepton_compile.errors import ExportError

from .harness import session_of_code

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def _kernel(x: Tensor, *shape: int) -> Tensor:
    """A kernel that depends on x, for nothing here has weights."""
    count = int(np.prod(shape))
    return x[0].repeat(-(-count // 6))[:count].view(shape)


def _convolved(x: Tensor) -> Tensor:
    rows = functional.conv1d(x[:, None], _kernel(x, 2, 1, 3), x[0, :2], stride=2, padding=1)
    plane = x[:, None, :, None].expand(-1, 2, -1, 5)
    return functional.conv2d(plane, _kernel(x, 2, 2, 3, 2), padding=(0, 1)).sum() + rows


def _padded_by_a_word(x: Tensor) -> Tensor:
    """An even kernel has one number more behind than before."""
    return functional.conv1d(x[:, None], _kernel(x, 1, 1, 4), padding="same")


def _unfolded(x: Tensor) -> Tensor:
    plane = x.unflatten(1, (2, 3))[..., None].expand(-1, 2, 3, 4)
    steps = functional.unfold(plane, (2, 3), dilation=(1, 1), padding=(1, 0))
    leaps = functional.unfold(plane, (1, 2), dilation=(1, 2), padding=(0, 1), stride=(2, 3))
    return torch.cat([steps.flatten(1), leaps.flatten(1)], 1)


def _folded(x: Tensor) -> Tensor:
    """Patches side by side, patches that overlap, and some that leave numbers out."""
    wide = (x[:, :, None] * x[0]).flatten(1)
    beside = functional.fold(wide.view(-1, 12, 3), (6, 2), (2, 2), stride=(2, 2))
    over = functional.fold(wide[:, :32].view(-1, 4, 8), (3, 5), (2, 2), stride=1)
    spaced = functional.fold(wide.view(-1, 9, 4), (7, 7), 3, dilation=2, padding=1, stride=3)
    return torch.cat([each.flatten(1) for each in (beside, over, spaced)], 1)


def _filled_where(x: Tensor) -> Tensor:
    y, z = x * 2, x.unflatten(1, (2, 3)) + 1
    y[x > 0] = 3.0
    z[x[:, :2] > 0] = 5
    return torch.subtract(torch.multiply(y, 2), torch.divide(z.flatten(1), 3))


def _squared(x: Tensor) -> Tensor:
    """All pairs of rows, a size that is a power."""
    pairs = (x[:, None] * x[None]).reshape(x.shape[0] ** 2, 6)
    return pairs + x.new_ones(x.shape[0] ** 2, 1)


def _transformed(x: Tensor) -> Tensor:
    """Of numbers that are real, and of complex ones, along a length that is open, too."""
    both = torch.fft.fftn(x[:, None] * x[0, :3, None], dim=(1, 2))
    each = torch.fft.fft(torch.fft.fft(x), dim=0)
    return torch.fft.fft2(x).real + each.imag + both.real.sum(1) - both.imag[:, 1]


def _angles(x: Tensor) -> Tensor:
    inside = x.clip(-0.9, 0.9)
    return inside.acos() + inside.asin() * x.atan() + functional.logsigmoid(4 * x)


def _repeated(x: Tensor) -> Tensor:
    """In front of an axis whose length is open."""
    return x.t()[:, None].repeat_interleave(3, dim=1).flatten(0, 1).t()


def _spread(x: Tensor) -> Tensor:
    wide = x.std(-1, unbiased=False, keepdim=True) + x.var(1)[:, None]
    return wide + x.std(dim=(1,), correction=2)[:, None]


def _divided(x: Tensor) -> Tensor:
    """Towards less, or towards zero; what is left over has the sign of what it is divided by."""
    whole = (3 * x).to(torch.int64)
    floats = x.floor_divide(0.3) + x.div(0.7, rounding_mode="trunc") + x % 0.7
    return floats + whole // 4 + whole.div(2, rounding_mode="trunc") + whole % 3


def _resized(x: Tensor) -> Tensor:
    """To fewer rows and more columns, looking at all that is dropped and not."""
    plane = x[:, None, :, None] * x[0, :5]
    ways = [(mode, smooth) for mode in ("bilinear", "bicubic") for smooth in (False, True)]
    made = [functional.interpolate(plane, (4, 7), mode=m, antialias=smooth) for m, smooth in ways]
    nearest = [functional.interpolate(plane, (4, 7), mode=m) for m in ("nearest", "nearest-exact")]
    return torch.cat([*made, *nearest], 1)


def _scaled(x: Tensor) -> Tensor:
    """Of functions and sums that have a number of their own beside their input."""
    bent = functional.elu(x, alpha=0.5) + functional.softplus(x, beta=2.0)
    return bent + torch.rsub(x, x.tanh(), alpha=2.0) + torch.rsub(bent, 1.5, alpha=0.5)


def _quadrants(x: Tensor) -> Tensor:
    """Of all signs, on the axes and where they meet."""
    whole = x.round().to(torch.int64)
    return torch.atan2(x, x.flip(1)) + torch.atan2(whole, whole.flip(1))


def _rounded(x: Tensor) -> Tensor:
    whole = (3 * x).to(torch.int64)
    floats = (2 * x).trunc() + torch.fmod(x, 0.3) + torch.fmod(x, x[0])
    return floats + torch.fmod(whole, 3) + x.clamp_max(0.5) + whole.clamp_max(1)


def _between(x: Tensor) -> Tensor:
    return torch.lerp(x, x[0], 0.3) + torch.lerp(x[0], x, x.sigmoid())


def _bent(x: Tensor) -> Tensor:
    return functional.selu(x) + functional.celu(x, alpha=0.5) + functional.celu(2 * x)


def _least(x: Tensor) -> Tensor:
    """Places, and sums of powers that do not overflow."""
    sums = (
        torch.logsumexp(100 * x, 1, keepdim=True)
        + torch.logsumexp(x.unflatten(1, (2, 3)), (1, 2))[:, None]
    )
    return sums + x.argmin(1, keepdim=True) + x[0].argmin() + x.argmax(1)[:, None]


def _either(x: Tensor) -> Tensor:
    """Of truths, of bits, and of numbers that stand for truths."""
    whole = x.round().to(torch.int64)
    truths = ((x > 0) ^ (x < 1)).float() + torch.logical_xor(whole, x > 0).float()
    return truths + (whole ^ 5) + torch.bitwise_xor(whole, 3) + torch.logical_not(whole).float()


def _sorted(x: Tensor) -> Tensor:
    """Into buckets, with numbers that lie on their boundaries; whole numbers, too."""
    halves, bounds = (2 * x).round() / 2, torch.arange(-1.0, 1.5, 0.5, device=x.device)
    whole, ends = (3 * x).to(torch.int64), torch.arange(-4, 5, 2, device=x.device)
    found = [torch.bucketize(halves, bounds, right=right) for right in (False, True)]
    found += [torch.bucketize(whole, ends, right=right) for right in (False, True)]
    short = torch.bucketize(x, x[0].abs().cumsum(0) - 2, out_int32=True)
    return torch.stack([*found, short.to(torch.int64)])


def _of_whole_numbers(x: Tensor) -> Tensor:
    """What torch gives of whole numbers as floats."""
    whole = (3 * x).to(torch.int64).abs() + 1
    roots = whole.sqrt() + whole.rsqrt() + 1.0 / whole + whole.reciprocal()
    waves = whole.sin() + whole.cos() + whole.tanh() + whole.erf() + whole.sigmoid()
    return roots + (-whole).exp() + whole.log() + waves + (whole > 2).exp()


def _stepped(x: Tensor) -> Tensor:
    """By fractions whose sums are others than their multiples, and one of which is one number more
    where it is added again and again."""
    steps = [torch.arange(1 / n, 1.0, 1 / n, device=x.device) for n in (10, 26, 27)]
    return torch.cat([*steps, torch.arange(0.5, 4.0, device=x.device)]) + 0 * x[:, :1]


def _inverted(x: Tensor) -> Tensor:
    both = torch.broadcast_tensors(x.tanh(), x[0])
    return torch.erfinv(both[0]) + torch.erfinv(1 - 1e-5 * x.sigmoid()) + both[1]


@pytest.mark.parametrize(
    "code",
    [
        _angles,
        _bent,
        _between,
        _convolved,
        _divided,
        _either,
        _filled_where,
        _folded,
        _inverted,
        _least,
        _of_whole_numbers,
        _padded_by_a_word,
        _quadrants,
        _repeated,
        _resized,
        _rounded,
        _scaled,
        _sorted,
        _squared,
        _stepped,
        _transformed,
        _unfolded,
    ],
    ids=lambda code: code.__name__,
)
def test_as_torch(code: Callable[[Tensor], Tensor]) -> None:
    session = session_of_code(code)
    for rows in (4, 3):  # as many as it was traced with, and others
        found, x = session.run(None, {"x": X[:rows]})[0], torch.from_numpy(X[:rows].copy())
        np.testing.assert_allclose(found, code(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (lambda x: torch.round(x, decimals=1), "ValueError: with more than its input"),
        (lambda x: torch.linalg.vector_norm(x, ord=1.5, dim=-1), "KeyError: 1.5"),
        (
            lambda x: torch.bucketize(x, torch.arange(3, device=x.device)).float(),
            "ValueError: of numbers in another type than their boundaries",
        ),
        (
            lambda x: x[:, :1] + torch.arange(0, x.shape[0], 0.3, device=x.device).sum(),
            "ValueError: by a fraction, as far as a size that is open",
        ),
    ],
)
def test_what_a_function_is_told_beside_its_input_is_not_passed_over(
    code: Callable[[Tensor], Tensor], found: str
) -> None:
    with pytest.raises(ExportError, match="in a form that has no translation") as caught:
        session_of_code(code)
    assert str(caught.value.found).endswith(found)
