"""Integers of weights that are put one under the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.grouped import FloatCodes, Grid, grouped, joined, rearranged, without_grid
from lepton_passes.tensors import StreamedTensor
from tests.passes.quant.stored import Stored

ONE = Stored.made(16, 128)


def plain(name: str = "w") -> StreamedTensor:
    return StreamedTensor(name, ir.DataType.FLOAT, (16, 128), lambda a, b: ONE.values[a:b])


def numbers(tensor: StreamedTensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.numpy()


def test_integers_of_parts_are_joined() -> None:
    other = Stored.made(4, 128, seed=1)
    source = grouped(joined("both", [ONE.tensor(), other.tensor()]))
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    wanted = np.concatenate([ONE.codes, other.codes])
    np.testing.assert_array_equal(grid.codes.rows(14, 20).astype(int), wanted[14:20])
    np.testing.assert_array_equal(numbers(grid.shifts), np.concatenate([ONE.shifts, other.shifts]))
    np.testing.assert_array_equal(grid.scales.numpy(), np.concatenate([ONE.scales, other.scales]))


@pytest.mark.parametrize(
    "stored", [Stored.made(16, 64, ordered=2), Stored.made(16, 64, form="offsets")]
)
def test_rows_take_their_integers_along(stored: Stored) -> None:
    def turned(rows: StreamedTensor) -> StreamedTensor:
        def read(start: int, stop: int) -> np.ndarray:
            return rows.rows(16 - stop, 16 - start)[::-1]

        return StreamedTensor("turned", rows.dtype, rows.shape.numpy(), read)

    made = rearranged(turned, stored.tensor())
    source = grouped(made)
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    np.testing.assert_array_equal(made.rows(2, 5), stored.values[::-1][2:5])
    np.testing.assert_array_equal(grid.codes.rows(2, 5).astype(int), stored.codes[::-1][2:5])
    np.testing.assert_array_equal(numbers(grid.shifts), stored.shifts[::-1])
    np.testing.assert_array_equal(grid.scales.numpy(), stored.scales[::-1])
    assert grid.order is stored.order
    assert grid.form == stored.form


def test_floats_stay_floats_and_have_nothing_beside_their_scales() -> None:
    stored = Stored.made(16, 64, form="floats")
    source = grouped(joined("both", [stored.tensor("a"), stored.tensor("b")]))
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    assert isinstance(grid.codes, FloatCodes)
    assert grid.shifts is None
    np.testing.assert_array_equal(grid.codes.numpy(), np.tile(stored.codes.astype(np.int8), (2, 1)))


@pytest.mark.parametrize(
    ("stored", "signed"),
    [
        (Stored.made(16, 64, zeros=(8, 8)), True),
        (Stored.made(16, 64, zeros=(7, 8)), False),
        (Stored.made(16, 64, zeros=(8, 9)), False),
        (Stored.made(16, 64, bits=8, zeros=(128, 128)), True),
        (Stored.made(16, 64, bits=8, zeros=(8, 8)), False),
    ],
)
def test_zero_points_in_the_middle_say_nothing(stored: Stored, signed: bool) -> None:
    source = grouped(stored.tensor())
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    assert grid.signed == signed
    assert not replace(grid, form="offsets").signed, "an offset of 8 is no zero point"


@pytest.mark.parametrize("row", [0, 15])
@pytest.mark.parametrize("zero", [7, 9])
def test_one_zero_point_beside_the_middle_says_something(row: int, zero: int) -> None:
    """Wherever it stands: they are looked at in blocks of rows."""
    stored = Stored.made(16, 64, zeros=(8, 8))
    points = stored.shifts.astype(np.float32)
    points[row, 1] = zero
    source = grouped(stored.tensor())
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    shifts = StreamedTensor(
        "zeros", ir.DataType.FLOAT, points.shape, lambda a, b: points[a:b], block_bytes=16
    )
    changed = replace(grid, shifts=shifts)
    assert changed.reach == (min(zero, 8), max(zero, 8))
    assert not changed.signed


def test_what_has_none_stays_plain() -> None:
    assert grouped(joined("both", [plain("a"), plain("b")])) is None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (plain(), "a part of it has no integers"),
        (
            without_grid(plain(), "an adapter is merged into it", ONE.tensor()),
            "an adapter is merged into it",
        ),
        (Stored.made(16, 128, 64).tensor(), "its parts have other bits or groups than each other"),
        (
            Stored.made(16, 128, bits=8).tensor(),
            "its parts have other bits or groups than each other",
        ),
        (
            Stored.made(16, 128, ordered=1).tensor(),
            "its parts have columns out of order (act-order)",
        ),
        (
            Stored.made(16, 128, form="offsets").tensor(),
            "its parts have other bits or groups than each other",
        ),
    ],
)
def test_parts_that_do_not_fit_say_so(other: StreamedTensor, reason: str) -> None:
    source = grouped(joined("both", [ONE.tensor(), other]))
    assert source is not None
    assert source.grid() == reason
    np.testing.assert_array_equal(source.rows(0, 16), ONE.values)
