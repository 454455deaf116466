"""Stacks of matrices, read by rows."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.stacks import Stack, flattened, one_by_one, taking_turns, transposed_each
from lepton_passes.tensors import StreamedTensor
from tests.passes.support import Counted, random

COUNT, ROWS, COLUMNS = 3, 4, 5


def _stored(array: np.ndarray) -> StreamedTensor:
    def read(start: int, stop: int) -> np.ndarray:
        return array[start:stop]

    return StreamedTensor("w", ir.DataType.FLOAT, array.shape, read)


def _all_rows_of(tensor: StreamedTensor, expected: np.ndarray) -> None:
    assert tensor.shape.numpy() == expected.shape
    np.testing.assert_array_equal(tensor.numpy(), expected)
    for start, stop in combinations(range(len(expected) + 1), 2):
        np.testing.assert_array_equal(tensor.rows(start, stop), expected[start:stop])


def test_a_stack_has_the_rows_and_bytes_of_its_matrix() -> None:
    counted = Counted(COUNT * ROWS, COLUMNS)
    stack = Stack(counted.tensor(), COUNT)
    _all_rows_of(stack, counted.w.reshape(COUNT, ROWS, COLUMNS))
    assert stack.tobytes() == counted.w.tobytes()
    counted.rows_read = 0
    stack.rows(1, 2)
    assert counted.rows_read == ROWS
    assert flattened(stack) is stack.flat


def test_a_stack_is_written_in_blocks_of_rows_not_of_matrices() -> None:
    array, largest = random(2 * 64, 8), []

    def read(start: int, stop: int) -> np.ndarray:
        largest.append(stop - start)
        return array[start:stop]

    flat = StreamedTensor("w", ir.DataType.FLOAT, array.shape, read, block_bytes=16 * 8 * 4)
    file = io.BytesIO()
    Stack(flat, 2).tofile(file)
    assert file.getvalue() == array.tobytes()
    assert max(largest) == 16


@pytest.mark.parametrize("streamed", [True, False])
def test_any_stack_can_be_flattened(streamed: bool) -> None:
    array = random(COUNT, ROWS, COLUMNS)
    tensor = _stored(array) if streamed else ir.tensor(array)
    _all_rows_of(flattened(tensor), array.reshape(-1, COLUMNS))


def test_matrices_are_turned_one_by_one() -> None:
    array = random(COUNT, COLUMNS, ROWS)
    expected = array.transpose(0, 2, 1).reshape(-1, COLUMNS)
    _all_rows_of(transposed_each(_stored(array)), expected)
    _all_rows_of(transposed_each(Stack(_stored(array.reshape(-1, ROWS)), COUNT)), expected)


def test_a_matrix_that_is_turned_is_read_once() -> None:
    counted = Counted(COUNT * COLUMNS, ROWS)
    turned = transposed_each(Stack(counted.tensor(), COUNT))
    for start in range(COUNT * ROWS):
        turned.rows(start, start + 1)
    assert counted.rows_read == COUNT * COLUMNS


@pytest.mark.parametrize("tail", [(COLUMNS,), ()])
def test_halves_take_turns(tail: tuple[int, ...]) -> None:
    array = random(COUNT, 2, ROWS // 2, *tail)
    expected = np.swapaxes(array, 1, 2).reshape(-1, *tail)
    _all_rows_of(taking_turns(_stored(array.reshape(-1, *tail)), COUNT), expected)
    _all_rows_of(one_by_one(_stored(expected), COUNT), array.reshape(-1, *tail))
