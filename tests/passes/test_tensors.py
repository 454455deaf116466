"""Tensors made in blocks of rows, and read where their rows have been put."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.tensors import StreamedTensor, concat_rows

TYPES = [
    ir.DataType.FLOAT,
    ir.DataType.BFLOAT16,
    ir.DataType.INT8,
    ir.DataType.INT4,
    ir.DataType.UINT4,
    ir.DataType.FLOAT8E4M3FN,
]


class Made:
    """Rows of a tensor, and how often they are asked for."""

    def __init__(self, dtype: ir.DataType, columns: int) -> None:
        low = 0 if dtype == ir.DataType.UINT4 else -7
        numbers = np.random.default_rng(0).integers(low, 8, (9, columns))
        self.numbers = numbers.astype(dtype.numpy())
        self.asked = 0
        self.tensor = StreamedTensor("w", dtype, (9, columns), self._read, block_bytes=4 * columns)

    def _read(self, start: int, stop: int) -> np.ndarray:
        self.asked += 1
        return self.numbers[start:stop]

    def put(self, path: Path) -> int:
        """Where its rows begin, after a few other bytes."""
        with path.open("wb") as file:
            file.write(b"head")
            self.tensor.tofile(file)
        self.asked = 0
        return len(b"head")


@pytest.mark.parametrize("dtype", TYPES, ids=lambda each: each.name)
def test_stored_rows_are_the_same_and_are_not_made(dtype: ir.DataType, tmp_path: Path) -> None:
    made = Made(dtype, 6)
    before = made.tensor.tobytes()
    offset = made.put(tmp_path / "w")
    with (tmp_path / "w").open("rb") as file:
        assert made.tensor.read_from(file.fileno(), offset)
        rows = made.tensor.rows(2, 5)
        assert (rows.dtype, rows.shape) == (dtype.numpy(), (3, 6))
        np.testing.assert_array_equal(rows, made.numbers[2:5])
        np.testing.assert_array_equal(made.tensor.rows(7, 20), made.numbers[7:])
        np.testing.assert_array_equal(made.tensor.numpy(), made.numbers)
        assert concat_rows("ww", [made.tensor, made.tensor]).tobytes() == 2 * before
        assert made.tensor.tobytes() == before
        assert made.asked == 0
    made.tensor.make_again()
    assert made.tensor.tobytes() == before
    assert made.asked == 9


def test_signs_of_four_bits_fill_their_bytes(tmp_path: Path) -> None:
    """Kernels take what passes round as bytes, without a look at its type."""
    made = Made(ir.DataType.INT4, 6)
    offset = made.put(tmp_path / "w")
    with (tmp_path / "w").open("rb") as file:
        assert made.tensor.read_from(file.fileno(), offset)
        integers = made.tensor.numpy().view(np.int8)
        assert integers.min() < 0
        np.testing.assert_array_equal(integers, made.numbers.astype(np.int8))


def test_rows_that_are_no_whole_bytes_are_made(tmp_path: Path) -> None:
    made = Made(ir.DataType.INT4, 5)
    made.tensor.tobytes()
    with (tmp_path / "w").open("w+b") as file:
        assert not made.tensor.read_from(file.fileno(), 0)
        assert made.tensor.numpy().tobytes() == made.numbers.tobytes()


def test_the_first_file_stays(tmp_path: Path) -> None:
    """Who read from it first lets it go; of another one nobody would say when it goes."""
    made = Made(ir.DataType.INT8, 6)
    offset = made.put(tmp_path / "w")
    with (tmp_path / "w").open("rb") as file, (tmp_path / "empty").open("w+b") as empty:
        assert made.tensor.read_from(file.fileno(), offset)
        assert not made.tensor.read_from(empty.fileno(), 0)
        assert made.tensor.numpy().tobytes() == made.numbers.tobytes()


def test_a_file_that_ends_early_is_no_tensor(tmp_path: Path) -> None:
    made = Made(ir.DataType.INT8, 6)
    with (tmp_path / "empty").open("w+b") as empty:
        assert made.tensor.read_from(empty.fileno(), 0)
        with pytest.raises(EOFError, match="54 bytes early"):
            made.tensor.numpy()
