"""Rows of a tensor in a file: those of the whole, read without it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.tensors import rows_of

RNG = np.random.default_rng(0)


def in_a_file(array: np.ndarray, dtype: ir.DataType, folder: Path) -> ir.ExternalTensor:
    data = ir.Tensor(array, dtype=dtype).tobytes()
    (folder / "weights.bin").write_bytes(b"before" + data + b"behind")
    shape = ir.Shape(array.shape)
    return ir.ExternalTensor(
        "weights.bin", 6, len(data), dtype, shape=shape, name="w", base_dir=str(folder)
    )


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 5)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16, ml_dtypes.int4])
def test_they_are_those_of_the_whole(dtype: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = RNG.integers(-8, 8, shape).astype(dtype)
    tensor = in_a_file(array, ir.DataType.from_numpy(np.dtype(dtype)), tmp_path)
    for start, stop in ((0, 7), (2, 4), (6, 7), (5, 9), (3, 3)):
        found = rows_of(tensor, start, stop)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array[start:stop])


def test_a_scalar_has_one(tmp_path: Path) -> None:
    tensor = in_a_file(np.array(3.0, np.float32), ir.DataType.FLOAT, tmp_path)
    assert rows_of(tensor, 0, 1).tolist() == [3.0]
